"""``python -m enarx.cli`` and the program ``enarx``."""

from __future__ import annotations

import os
import sys

from enarx.host.keep_start import Interpreter, start_interpreter


def main() -> None:
    """Run the command line and exit with its code.

    A keep needs about as long to boot as this process to load a command, so for ``run`` it boots meanwhile; when the
    command line turns out to be wrong, the end of its channel ends it.
    """
    early: Interpreter | None = None
    if sys.argv[1:2] == ["run"] and not {"--help", "-h"} & set(sys.argv):
        try:
            early = start_interpreter()
        except OSError:
            early = None  # the command tries again, and tells why it fails
    from enarx.cli._main import main as run_command

    code = run_command(early=early)
    sys.stderr.flush()
    os._exit(
        code
    )  # standard output is flushed; taking the interpreter apart would cost as long as starting it


if __name__ == "__main__":
    main()
