"""Keep the command `python -m train.mesh`; the code is in train.painters.trainer."""

from train.painters.trainer import main

if __name__ == "__main__":
    main()
