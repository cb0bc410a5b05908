"""One file for each result."""
