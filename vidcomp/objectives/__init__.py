"""Family: every file but base.py is an objective, named after the file."""
