"""Run `python -m train.data`."""

from train.data.prepare import main

if __name__ == "__main__":
    main()
