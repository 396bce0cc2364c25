"""Stages before a cell: train a classifier from scratch, fine-tune it on purified images. Made once, kept, reused."""
