"""Run `python -m train.keypoints`."""

from train.keypoints.fit import main

if __name__ == "__main__":
    main()
