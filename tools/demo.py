"""Show what Enarx does, in six steps that check what they claim: ``make demo``.

A line that starts with ``$`` is a command that was run as it stands, with what it wrote below it. The exit code is 0
only if each step did what it says. The README shows the output, with dots for what differs from run to run.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
BALLOTS: Final = "examples/sealed-vote/ballots.txt"
DEPLOY: Final = f"enarx deploy examples/build/sealed-vote.wasm --host $HOST --secret ballots={BALLOTS}"
CHOICES: Final = "-- 5 tea coffee cocoa"
TRUSTING: Final = f"{DEPLOY} --trust-root $DIR/root.pem {CHOICES}"
SNOOP: Final = "enarx run examples/build/snoop.wasm"
VOTE: Final = "enarx run examples/build/sealed-vote.wasm --config examples/sealed-vote/Enarx.toml"
ENDLESS: Final = f"{VOTE} --limit time=500ms < /dev/zero"
CHANGED: Final = "enarx/tcb/session/_keep.py"
NOT_ACCEPTED: Final = 119
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
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if progress else subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    for line in done.stdout.splitlines():
        print(f"   | {line}".rstrip())
    expect(done.returncode == code, f"exit code {done.returncode}, expected {code}")
    return done.stdout


def service(command: str, stack: ExitStack) -> dict[str, str]:
    """Start ``command`` in the background until the demonstration ends; give the document that says that it is up."""
    print(f"   $ {command} &", flush=True)
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"exec {command} --json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    stack.callback(_end, process)
    line = process.stdout.readline() if process.stdout is not None else ""
    expect(bool(line), "it does not start")
    document: dict[str, str] = json.loads(line)
    return document


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


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


def serve(stack: ExitStack) -> None:
    step(2, "A machine with an EMULATED TEE launches keeps for whoever asks")
    service("enarx-emulator start snp --state $DIR/machine --beside-real-hardware", stack)
    shell("enarx-emulator root --state $DIR/machine --out $DIR/root.pem")
    os.environ["HOST"] = service(
        "enarx host serve --backend emulated=$DIR/machine --listen 127.0.0.1:0", stack
    )["url"]
    passed("$HOST is its address")


def deploy() -> None:
    step(3, "Secret ballots go to a keep that has proved what it is, and only the result comes out")
    told = shell(TRUSTING)
    ballots = [line.split() for line in (ROOT / BALLOTS).read_text().splitlines()]
    leaked = {word for voter, _, secret in ballots for word in (voter, secret) if word in told.split()}
    expect(not leaked and "8 ballots counted" in told, f"the output tells {leaked or 'no result'}")
    expect(told.count("accepted the") == 2, "the keep was not judged twice")
    passed(f"of {len(ballots)} ballots neither a voter nor a secret is in the output")


def distrust() -> None:
    step(4, "Who does not name the emulated root gives nothing away: only real hardware is trusted")
    told = shell(f"{DEPLOY} {CHOICES}", code=NOT_ACCEPTED)
    expect("delivered" not in told, "something was delivered")
    passed("the keep was refused before anything was delivered")


def tamper(stack: ExitStack, folder: Path) -> None:
    step(5, "A host that changes one line of the keep's code is found out")
    shell("enarx image build --out $DIR/keep.tar > $DIR/keep.txt")
    _change(folder / "keep.tar", folder / "changed.tar")
    print(f"   (one line is added to {CHANGED}, and the image packed again: $DIR/changed.tar)")
    command = "enarx host serve --backend emulated=$DIR/machine --listen 127.0.0.1:0 --image $DIR/changed.tar"
    os.environ["HOST"] = service(command, stack)["url"]
    told = shell(TRUSTING, code=NOT_ACCEPTED)
    expect("delivered" not in told and "measurement" in told, "the keep was not refused for its measurement")
    passed("genuine evidence, but of another keep: refused")


def _change(image: Path, changed: Path) -> None:
    """Pack the image again with a line more in one file, and with a manifest that fits."""
    with tarfile.open(image) as archive:
        files = {it.name: archive.extractfile(it).read() for it in archive.getmembers()[1:]}  # type: ignore[union-attr]
    files[CHANGED] += b"# and tell the host everything\n"
    manifest = "".join(f"{sha256(data).hexdigest()}  {name}\n" for name, data in files.items()).encode()
    with tarfile.open(changed, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in {"MANIFEST": manifest, **files}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def hold() -> None:
    step(6, "And the workload is held, too: here in a keep that is only a process")
    shell(SNOOP)
    shell(ENDLESS, code=124)
    passed("no file, no variable, no network, and an end in time")


def main() -> int:
    """Take every step; the first that fails ends the demonstration."""
    os.chdir(ROOT)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    with tempfile.TemporaryDirectory(prefix="enarx-demo-") as folder, ExitStack() as stack:
        os.environ |= {"ENARX_CACHE": f"{folder}/cache", "XDG_CACHE_HOME": f"{folder}/cache", "DIR": folder}
        try:
            build()
            serve(stack)
            deploy()
            distrust()
            tamper(stack, Path(folder))
            hold()
        except StepFailed as error:
            sys.stdout.flush()
            print(f"   failed: {error}", file=sys.stderr)
            return 1
    print(
        "The TEE was emulated: everything is as on hardware but the protection. README.md says what comes next,"
    )
    print(
        "docs/tutorial/first-keep.md how to run a program of your own, docs/how-to/deploy.md how to deploy it."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
