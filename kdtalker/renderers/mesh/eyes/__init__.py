"""Draw lids and what closing lids uncover."""
