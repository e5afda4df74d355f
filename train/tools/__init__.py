"""Convert models of other projects."""
