"""Keep the command `python -m train.export`; the code is in train.motion.export."""

from train.motion.export import main

if __name__ == "__main__":
    main()
