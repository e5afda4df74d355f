"""The command line from a checkout: `python inference.py --image P --audio A --output F`."""

import sys

from kdtalker.cli import main

if __name__ == "__main__":
    sys.exit(main())
