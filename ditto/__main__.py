"""`python -m ditto`."""

import sys

from ditto.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
