"""`python -m mgnet` is the command `mgnet`."""

import sys

from mgnet.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
