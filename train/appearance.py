"""Keep the command `python -m train.appearance`; the code is in train.evaluate.appearance."""

from train.evaluate.appearance import main

if __name__ == "__main__":
    main()
