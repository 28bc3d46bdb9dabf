"""`python -m rdlite` is `rdlite`."""

import sys

from rdlite.cli import main

if __name__ == "__main__":
    sys.exit(main())
