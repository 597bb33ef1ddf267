"""``python -m ccfast.compat SCRIPT ARGS...``."""

import sys

from ccfast.compat.script import main

if __name__ == "__main__":
    main(sys.argv[1:])
