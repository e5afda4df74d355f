"""Train the model of the mouth's inside: teeth textures and the network that shades them."""
