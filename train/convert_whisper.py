"""Keep the command `python -m train.convert_whisper`; the code is in train.tools.convert_whisper."""

from train.tools.convert_whisper import main

if __name__ == "__main__":
    main()
