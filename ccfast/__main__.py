"""``python -m ccfast``: the same program as ``ccfast``."""

from __future__ import annotations

import sys

from ccfast.cli import main

if __name__ == "__main__":
    sys.exit(main())
