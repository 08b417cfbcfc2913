"""Family: every file but base.py is a tokenizer, named after the file."""
