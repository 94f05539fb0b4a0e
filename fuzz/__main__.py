"""``python -m fuzz [--seconds N] [NAME...]``: let atheris look for bytes that break a parser.

Each target has a process of its own and starts from ``fuzz/corpus/NAME``. What breaks a target is written to
``build/fuzz`` and belongs into the corpus once it is mended; ``tests/unit/test_corpus.py`` runs the corpus.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
FOUND: Final = HERE.parent / "build" / "fuzz"
MAX_BYTES: Final = 1 << 16
MEMORY_MIB: Final = 1024
ONE_INPUT_S: Final = 10


def targets() -> list[str]:
    """Name every target of this folder."""
    return sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))


def main() -> int:
    """Run the targets one after another; give 1 when any of them broke."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=20, help="how long each target runs (default: 20)")
    parser.add_argument(
        "names", nargs="*", choices=[*targets(), []], metavar="NAME", help="targets (default: all)"
    )
    options = parser.parse_args()
    FOUND.mkdir(parents=True, exist_ok=True)
    names = options.names or targets()
    broken = [name for name in names if not run(name, options.seconds)]
    print(f"fuzz: {len(names) - len(broken)} passed, {len(broken)} failed", flush=True)
    return 1 if broken else 0


def run(name: str, seconds: int) -> bool:
    """Run one target; say whether it stood."""
    corpus = HERE / "corpus" / name
    program = f"from fuzz._target import fuzz; fuzz({name!r})"
    command = [
        *(sys.executable, "-c", program),
        *(f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", f"-rss_limit_mb={MEMORY_MIB}"),
        *(
            f"-timeout={ONE_INPUT_S}",
            f"-artifact_prefix={FOUND}/{name}-",
            "-print_final_stats=0",
            "-verbosity=0",
        ),
    ]
    work = FOUND / f"corpus-{name}"
    work.mkdir(exist_ok=True)
    folders = [str(work), *([str(corpus)] if corpus.is_dir() else [])]
    done = subprocess.run([*command, *folders], cwd=HERE.parent, capture_output=True, text=True)
    print(f"fuzz: {name}: {'stood' if done.returncode == 0 else 'BROKE'} {seconds} s", flush=True)
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-8000:], sep="\n", file=sys.stderr, flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
