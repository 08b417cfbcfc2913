"""What a study found, in one page for people and one file for tools."""
