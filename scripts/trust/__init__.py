"""Defenses whose robustness is known, and what every attack and verdict makes of them: docs/trust.md."""
