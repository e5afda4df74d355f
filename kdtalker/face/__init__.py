"""Pictures to faces: detector, tracker, landmarks, segmentation, crop."""
