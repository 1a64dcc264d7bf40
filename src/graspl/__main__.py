"""`python -m graspl`."""

import sys

from graspl.cli import main

if __name__ == "__main__":
    sys.exit(main())
