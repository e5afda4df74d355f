"""Run `python -m train.evaluate`."""

from train.evaluate.report import main

if __name__ == "__main__":
    main()
