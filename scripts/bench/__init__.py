"""The benchmark behind `make bench`: one file per part, all of them called by run.py."""
