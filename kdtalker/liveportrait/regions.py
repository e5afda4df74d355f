"""Which of the 21 keypoints of the published model carry the lips and which the eyes.

LivePortrait learned its keypoints without labels (arXiv 2407.03168, section 3.1); these are the ones that its own
program moves where it animates one of these regions alone.
"""

LIP_KEYPOINTS = (6, 12, 14, 17, 19, 20)
EYE_KEYPOINTS = (11, 13, 15, 16, 18)
