"""A finished record on its way to somebody else: packed into one archive, and its kept images scored again elsewhere."""
