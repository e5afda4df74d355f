"""Run `python -m train.bench`."""

from train.bench.film import main

if __name__ == "__main__":
    main()
