"""``python -m prewarmkit``."""

from __future__ import annotations

import sys

from prewarmkit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
