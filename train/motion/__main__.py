"""Run `python -m train.motion`."""

from train.motion.trainer import main

if __name__ == "__main__":
    main()
