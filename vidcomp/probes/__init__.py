"""Family: every file but base.py is a probe, named after the file."""
