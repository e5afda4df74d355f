"""Keep the command `python -m train.closures`; the code is in train.evaluate.closures."""

from train.evaluate.closures import main

if __name__ == "__main__":
    main()
