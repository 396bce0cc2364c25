"""Drawings of the documentation that hold no measured numbers."""
