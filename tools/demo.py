"""Show what a keep does, in six steps that check what they claim: ``make demo``.

A line that starts with ``$`` is a command that was run as it stands, with what it wrote below it; in the last step
this program itself starts the keep and reads what the kernel says about it. The exit code is 0 only if each step did
what it says. The README shows the output, so nothing in it may differ from run to run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
BALLOTS: Final = "examples/sealed-vote/ballots.txt"
VOTE: Final = "enarx run examples/build/sealed-vote.wasm --config examples/sealed-vote/Enarx.toml"
SNOOP: Final = "enarx run examples/build/snoop.wasm"
HELD: Final = {"CapEff": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2"}
"""What the kernel says of a locked-down process: no capability, no way to more, a filter of system calls."""
WAIT_S: Final = 30.0


class StepFailed(Exception):
    """A step did not do what it says."""


def step(number: int, title: str) -> None:
    print(f"{number}. {title}", flush=True)


def shell(command: str, *, code: int = 0, progress: bool = False) -> str:
    """Run ``command`` as it is printed, show what it writes and give it; any other exit code than ``code`` fails.

    ``progress`` is for a command whose standard error tells only what it is doing, which differs from run to run.
    """
    print(f"   $ {command}", flush=True)
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        stdout=subprocess.PIPE,
        stderr=None if progress else subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    for line in done.stdout.splitlines():
        print(f"   | {line}".rstrip())
    expect(done.returncode == code, f"exit code {done.returncode}, expected {code}")
    return done.stdout


def expect(truth: bool, otherwise: str) -> None:
    """Raise ``StepFailed`` unless it is true."""
    if not truth:
        raise StepFailed(otherwise)


def passed(claim: str) -> None:
    print(f"   ok: {claim}\n", flush=True)


def build() -> None:
    step(1, "Two C programs become WebAssembly")
    if not (ROOT / "examples/build/sealed-vote.wasm").exists():
        print("enarx: the first C build also compiles the C library: about half a minute", file=sys.stderr)
    shell("python -m examples.build sealed-vote snoop", progress=True)
    passed("built")


def vote() -> None:
    step(2, "Secret ballots go in, only the result comes out")
    result = shell(f"{VOTE} < {BALLOTS}")
    ballots = [line.split() for line in (ROOT / BALLOTS).read_text().splitlines()]
    leaked = {word for voter, _, secret in ballots for word in (voter, secret) if word in result}
    expect(not leaked and "8 ballots counted" in result, f"the output tells {leaked or 'no result'}")
    passed(f"of {len(ballots)} ballots neither a voter nor a secret is in the output")


def seal() -> None:
    step(3, "With too few ballots nothing comes out")
    shell(f"head -n 4 {BALLOTS} | {VOTE}", code=3)
    passed("the exit code is the program's own: 3")


def snoop() -> None:
    step(4, "A program that looks around sees nothing of this machine")
    shell(SNOOP)
    passed("no file, no variable, no network")


def stop() -> None:
    step(5, "A program that does not end is stopped")
    shell(f"{VOTE} --limit time=500ms < /dev/zero", code=124)
    passed("exit code 124, and the process that started the keep lives on")


def hold() -> None:
    step(6, "The kernel holds the keep's process, too")
    command = [*VOTE.split()]
    print(f"   $ {VOTE} &")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        status = _status_of_keep(process)
        print("   $ grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/$KEEP/status")
        for name in HELD:
            print(f"   | {name}: {status.get(name, 'unknown')}")
        process.communicate(timeout=WAIT_S)
    expect(all(status.get(name) == value for name, value in HELD.items()), f"expected {HELD}")
    passed("no capability, no way to gain one, and only the system calls on a list")


def _status_of_keep(process: subprocess.Popen[bytes]) -> dict[str, str]:
    """Wait until the keep below ``process`` is locked down; give what the kernel says about it, whatever it is."""
    deadline = time.monotonic() + WAIT_S
    status: dict[str, str] = {}
    while process.poll() is None and time.monotonic() < deadline:
        status = _status(_innermost(process.pid)) or status
        if all(status.get(name) == value for name, value in HELD.items()):
            break
        time.sleep(0.02)
    return status


def _innermost(pid: int) -> int:
    """Follow the children of ``pid`` down to the last: the keep is the child of the process that waits for it."""
    try:
        children = [
            child
            for path in Path(f"/proc/{pid}/task").glob("*/children")
            for child in path.read_text().split()
        ]
    except OSError:
        return pid
    return _innermost(int(children[-1])) if children else pid


def _status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def main() -> int:
    """Take every step; the first that fails ends the demonstration."""
    os.chdir(ROOT)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    with tempfile.TemporaryDirectory(prefix="enarx-demo-") as cache:
        os.environ["ENARX_CACHE"] = cache
        try:
            for action in (build, vote, seal, snoop, stop, hold):
                action()
        except StepFailed as error:
            sys.stdout.flush()
            print(f"   failed: {error}", file=sys.stderr)
            return 1
    print("This keep is a process: the kernel keeps the program in, nothing keeps the machine's owner out.")
    print("README.md says what comes next, docs/tutorial/first-keep.md how to run a program of your own.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
