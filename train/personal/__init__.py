"""A person's own way of talking, learned from a minute of film."""
