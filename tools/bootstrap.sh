#!/bin/sh
# Makes a virtual environment: bootstrap.sh PYTHON VENV. Debian ships Python without the venv module's helper; this
# installs it where that is possible and otherwise says what to do.
set -eu
python=$1
venv=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "enarx: Python 3.11 or newer is needed, '$python' is $("$python" -V 2>&1)" >&2
    echo "hint: make PYTHON=/path/to/python3.11 $*" >&2
    exit 1
}
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "enarx: installing Debian's python$version-venv" >&2
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
            "python$version-venv" ca-certificates >/dev/null
    else
        echo "enarx: this Python cannot make virtual environments" >&2
        echo "hint: sudo apt-get install python$version-venv" >&2
        exit 1
    fi
fi
"$python" -m venv "$venv"
