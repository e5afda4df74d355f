"""The command line from a checkout: `python inference.py --image P --audio A --output F`."""

import sys

if __name__ == "__main__":
    try:
        from kdtalker.apps.cli import main
    except KeyboardInterrupt:  # before the program could begin to listen for it
        sys.exit(130)
    sys.exit(main())
