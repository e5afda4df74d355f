"""The same networks, rearranged to run faster."""
