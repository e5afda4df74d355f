"""Run `python -m train.interior`."""

from train.interior.trainer import main

if __name__ == "__main__":
    main()
