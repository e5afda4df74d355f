"""Turn a head: its depth, its far side, the background behind it, limits."""
