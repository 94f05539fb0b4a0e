"""Many guest programs as one workload, for keeps that are dear to start: ``tests/guests/sequence.c`` runs its parts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from examples.build import C_FLAGS, EXAMPLES

GUESTS: Final = EXAMPLES.parent / "tests" / "guests"
MAIN: Final = re.compile(r"^int main\((void|int argc, char \*\*argv)\)", re.MULTILINE)
SEQUENCE: Final = GUESTS / "sequence.c"
OTHERS: Final = {"tls-echo": EXAMPLES / "tls-echo" / "main.c", "kvstore": EXAMPLES / "kvstore" / "main.c"}
TABLE: Final = """\
static const struct {{
    const char *name;
    int (*call)(int, char **);
}} parts[] = {{{}}};
"""


def build_sequence(folder: Path) -> Path:
    """Compile all guest programs into one in ``folder``: each by itself, with its ``main`` renamed."""
    parts = {path.stem: path for path in sorted(GUESTS.glob("*.c")) if path != SEQUENCE} | OTHERS
    sources, declared, listed = [], [], []
    for name, path in parts.items():
        found = MAIN.search(path.read_text())
        assert found is not None, f"{path} has no main function of a known form"
        plain = found[1] == "void"
        symbol = f"part_{re.sub(r'[^a-z0-9]', '_', name)}"
        source = folder / f"{symbol}.c"
        source.write_text(f'#define main {symbol}\n#include "{path}"\n')
        sources.append(source.name)
        declared.append(f"int {symbol}({found[1]});\n")
        if plain:
            declared.append(
                f"static int call_{symbol}(int argc, char **argv)\n"
                f"{{\n    (void)argc, (void)argv;\n    return {symbol}();\n}}\n"
            )
        listed.append(f'{{"{name}", {"call_" if plain else ""}{symbol}}}, ')
    (folder / "parts.h").write_text("".join(declared) + TABLE.format("".join(listed)))
    made = folder / "sequence.wasm"
    command = [sys.executable, "-m", "ziglang", "cc", *C_FLAGS, "-I.", *sources, str(SEQUENCE)]
    done = subprocess.run([*command, "-o", str(made)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return made


def sequence(*parts: str) -> tuple[str, ...]:
    """Give the arguments that run these parts, each written as its name and arguments with spaces between them."""
    found: list[str] = []
    for part in parts:
        found += [*(["--"] if found else []), *part.split(" ")]
    return tuple(found)
