"""``python -m bench [NAME...]``: run the benchmarks of this folder, or those named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Run each benchmark in a process of its own, so that none warms up another; give how many failed."""
    known = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))
    names = sys.argv[1:] or known
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(
            f"bench: no benchmark is called {', '.join(unknown)}; there are {', '.join(known)}",
            file=sys.stderr,
        )
        return 2
    failed = 0
    for name in names:
        print(f"== {name}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"bench.{name}"], cwd=HERE.parent).returncode != 0
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
