"""Family: every file but base.py is a sampler, named after the file."""
