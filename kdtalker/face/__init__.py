"""Find faces in pictures and videos: detector, tracker, landmarks, segmentation, square crop."""
