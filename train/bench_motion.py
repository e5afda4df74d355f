"""Keep the command `python -m train.bench_motion`; the code is in train.bench.motion."""

from train.bench.motion import main

if __name__ == "__main__":
    main()
