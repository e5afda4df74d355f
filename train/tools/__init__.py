"""Tools that are rarely needed."""
