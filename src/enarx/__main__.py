"""``python -m enarx``: hands over to the command line."""

from enarx.cli.__main__ import main

if __name__ == "__main__":
    main()
