"""Train the network that shades the skin around the mouth."""
