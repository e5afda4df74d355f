"""Weight files: the table of models; find, fetch, verify, read."""
