"""Run `python -m train.shading`."""

from train.shading.trainer import main

if __name__ == "__main__":
    main()
