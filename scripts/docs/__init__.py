"""The tables and figures of docs/: made from the small records in docs/records/, which `gather` takes from an outputs folder."""
