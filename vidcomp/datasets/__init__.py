"""Family: every file but base.py is a dataset, named after the file."""
