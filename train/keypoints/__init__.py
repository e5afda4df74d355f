"""Fit the face model and its keypoints: `python -m train.keypoints`."""
