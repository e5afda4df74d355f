"""Hostile use of the command line as a table: what is given, and how the run must end."""
