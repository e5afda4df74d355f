"""Keep the command `python -m train.life`; the code is in train.evaluate.life."""

from train.evaluate.life import main

if __name__ == "__main__":
    main()
