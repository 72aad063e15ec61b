"""`python -m defectoscope` is the `defectoscope` command."""

from __future__ import annotations

import sys

from defectoscope.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
