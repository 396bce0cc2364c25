"""The report as one file for a browser: claims, ladders, tables, figures, pictures, captions, and an entry per record."""
