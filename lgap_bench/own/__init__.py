"""Somebody's own defense, as it stands in Python: no YAML, no tree. `evaluate` is the entrance."""
