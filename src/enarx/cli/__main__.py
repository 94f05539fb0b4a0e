"""``python -m enarx.cli`` and the program ``enarx``."""

from __future__ import annotations

import sys

from enarx.cli._main import main as run_command


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run_command())


if __name__ == "__main__":
    main()
