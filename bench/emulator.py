"""Emulated platforms: how soon a machine answers, how soon a guest has its report, how many guests one machine bears.

Peers: an empty Python process; one ECDSA signature on P-384, without which there is no report.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from bench._report import line, median_ms, timed
from enarx_emulator.client import Platform
from enarx_emulator.program import pack_image

PROGRAM: Final = str(Path(sys.executable).with_name("enarx-emulator"))
PYTHON: Final = Path(sys.executable).resolve()
STARTS: Final = 15
REPORTS: Final = 200
GUESTS: Final = 100
GUEST: Final = f"""
import os, socket, sys, time
sys.path[:0] = {sys.path!r}
from enarx_emulator.client import PortTree
channel, port = socket.socket(fileno=3), PortTree(socket.socket(fileno=4))
gramine = "attestation" in port.list("")
gramine or port.make("report/bench")
while rounds := channel.recv(4):
    taken = []
    for _ in range(int.from_bytes(rounds, "big")):
        data, began = os.urandom(64), time.perf_counter()
        port.write("attestation/user_report_data" if gramine else "report/bench/inblob", data)
        port.read("attestation/quote" if gramine else "report/bench/outblob")
        taken.append(time.perf_counter() - began)
    channel.sendall(b"%d\\n" % (sorted(taken)[len(taken) // 2] * 1e9))
"""


def main() -> None:
    """Print all figures."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for kind in ("pef", "snp", "sgx", "tdx", "sev"):
            start(kind, home)
        for kind in ("snp", "sgx", "tdx"):
            reports(kind, home)
        many(home)


@contextmanager
def running(kind: str, home: Path) -> Iterator[None]:
    """A machine that answers."""
    command = [PROGRAM, "start", kind, "--state", str(home / kind), "--beside-real-hardware"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.terminate()
        process.communicate()


def start(kind: str, home: Path) -> None:
    """From the command until the socket takes a connection, for a machine that was made before."""

    def once() -> None:
        began = time.perf_counter()
        with running(kind, home), Platform(home / kind):
            ours.append(time.perf_counter() - began)

    ours: list[float] = []
    once()
    ours.clear()
    peers: list[float] = []
    for _ in range(STARTS):  # in turn, so that what else the machine does hits both alike
        once()
        peers += timed(partial(subprocess.run, [sys.executable, "-c", "pass"], check=True), 1)
    value = median_ms(ours)
    line(
        f"start {kind}", f"{value:.0f} ms", peer="an empty Python process", ratio=value / median_ms(peers),
        goal="< 300 ms", met=value < 300,
    )  # fmt: skip


def launch(platform: Platform, program: Path) -> socket.socket:
    """A guest that asks as often as its channel says."""
    argv = [str(PYTHON), "-I", "-S", str(program)]
    guest = platform.command("launch", image=pack_image([PYTHON, program], argv))["guest"]
    assert isinstance(guest, int)
    ours, theirs = socket.socketpair()
    with theirs:
        platform.run(guest, argv, channel=theirs.fileno())
    return ours


def ask(channel: socket.socket, rounds: int) -> float:
    """Have it ask, and give the median in milliseconds."""
    channel.sendall(rounds.to_bytes(4, "big"))
    return int(channel.recv(100)) / 1e6


def reports(kind: str, home: Path) -> None:
    """From writing the report data to having the evidence, in the guest."""
    program = home / "guest.py"
    program.write_text(GUEST)
    key = ec.generate_private_key(ec.SECP384R1() if kind == "snp" else ec.SECP256R1())
    digest = ec.ECDSA(hashes.SHA384())
    with running(kind, home), Platform(home / kind) as platform, launch(platform, program) as channel:
        ask(channel, 20)
        value = ask(channel, REPORTS)
        peer = median_ms(timed(partial(key.sign, os.urandom(672), digest), REPORTS))
    line(
        f"evidence of {kind}, asked by a guest", f"{value:.2f} ms", peer="one signature", ratio=value / peer,
        goal="< 10 ms", met=value < 10,
    )  # fmt: skip


def many(home: Path) -> None:
    """Guests on one machine of SNP, each with a report."""
    program = home / "guest.py"
    began = time.perf_counter()
    with running("snp", home), Platform(home / "snp") as platform, ExitStack() as stack:
        channels = [stack.enter_context(launch(platform, program)) for _ in range(GUESTS)]
        answered = [ask(channel, 1) for channel in channels]
        took = time.perf_counter() - began
        met = len(answered) == GUESTS
        line(f"{GUESTS} guests with a report each", f"{took:.1f} s", goal=f"{GUESTS} on one machine", met=met)


if __name__ == "__main__":
    main()
