"""Keep the command `python -m train.bench_painting`; the code is in train.bench.painting."""

from train.bench.painting import main

if __name__ == "__main__":
    main()
