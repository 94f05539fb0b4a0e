"""Attested deployment: from ``deploy`` to the first byte of output and its parts, keeps a second, memory of a keep,
throughput of the channel.

Peers: a TLS 1.3 connection between two plain processes, for the channel; everything else is held against its goal.
The machines are emulated: a real one needs milliseconds for its evidence, too.
"""

from __future__ import annotations

import json
import multiprocessing
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from examples.build import OUTPUT, build, compile_source
from OpenSSL import SSL

from bench._report import line
from enarx.tenant.agent_calls import HostAddress
from enarx.tenant.agent_client import AgentClient
from enarx.tenant.channel import Channel
from enarx.tenant.deployment import plan_deployment
from enarx.tenant.image import installed_image
from enarx.tenant.steps import Step
from enarx.tenant.verification import Trust

PROGRAMS: Final = Path(sys.executable).parent
KINDS: Final = ("snp", "sgx", "tdx")
ROUNDS: Final = 30
STARTED: Final = 200
ALIVE: Final = 200
LARGE_BYTES: Final = 64 << 20
GOAL_MS: Final = 150.0


def main() -> None:
    """Print all figures."""
    hello = build("hello")
    large = compile_source(Path("tests/guests/largebuf.c"), OUTPUT / "guests" / "largebuf.wasm")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for kind in KINDS:
            with host(Path(folder), kind) as (address, trust):
                latency(kind, address, trust, hello)
        address, trust = stack.enter_context(host(Path(folder), "snp"))
        started(address)
        alive(address)
        throughput(address, trust, large)


@contextmanager
def host(folder: Path, kind: str) -> Iterator[tuple[HostAddress, Trust]]:
    """An emulated machine and an agent on it, as processes of their own."""
    state = folder / kind
    with ExitStack() as stack:
        _running(
            stack, "enarx-emulator", "start", kind, "--state", str(state), "--beside-real-hardware", "--json"
        )
        told = _running(
            stack,
            *("enarx", "host", "serve", "--backend", f"emulated={state}", "--listen", "127.0.0.1:0"),
            *("--max-keeps", str(ALIVE + 56), "--json"),
        )
        address = HostAddress.parse(str(told["url"]))
        with AgentClient(address) as agent:
            roots = {f"emulated {at}": root for at, root in enumerate(agent.platform(kind).roots)}
        yield address, Trust.release(installed_image(), roots=roots)


def _running(stack: ExitStack, program: str, *arguments: str) -> dict[str, object]:
    process = subprocess.Popen(
        [str(PROGRAMS / program), *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    assert process.stdout is not None
    told: dict[str, object] = json.loads(process.stdout.readline())
    return told


def latency(kind: str, address: HostAddress, trust: Trust, wasm: Path) -> None:
    """Median times from the call to each step, and to the first byte of output."""
    parts: dict[str, list[float]] = {}
    for round_ in range(ROUNDS + 3):
        began = time.perf_counter()
        times: list[tuple[str, float]] = []

        def observe(step: Step, began: float = began, times: list[tuple[str, float]] = times) -> None:
            times.append((step.what.value, 1000 * (time.perf_counter() - began)))

        sink = _FirstByte()
        plan_deployment(wasm, address, trust=trust, observer=observe).run(stdout=sink.write)
        times.append(("first output byte", 1000 * (sink.at - began)))
        if round_ >= 3:
            for name, at in times:
                parts.setdefault(name, []).append(at)
    for name, taken in parts.items():
        if name != "first output byte":
            line(f"{kind}: until {name}", f"{statistics.median(taken):.1f} ms")
    median = statistics.median(parts["first output byte"])
    fastest = min(parts["first output byte"])
    met = "met" if median < GOAL_MS else "missed"
    line(
        f"{kind}: until the first output byte",
        f"{median:.1f} ms, fastest {fastest:.1f}; goal {GOAL_MS:g}: {met}",
    )


class _FirstByte:
    """A file that remembers when it was first written."""

    at = 0.0

    def write(self, data: bytes) -> int:
        self.at = self.at or time.perf_counter()
        return len(data)


def started(address: HostAddress) -> None:
    """How many keeps a second are launched, measured and ready, by four clients at once."""

    def launch(count: int) -> None:
        with AgentClient(address) as agent:
            for _ in range(count):
                agent.stop(agent.create("snp", b"").id)

    began = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(launch, [STARTED // 4] * 4))
    line("keeps launched and stopped", f"{STARTED / (time.perf_counter() - began):.0f} a second")


def alive(address: HostAddress) -> None:
    """Memory of one of many keeps, by what is its own of what it shares."""
    with AgentClient(address) as agent:
        before = _proportional_kib()
        began = time.perf_counter()
        keeps = [agent.create("snp", b"") for _ in range(ALIVE)]
        took = time.perf_counter() - began
        each = (_proportional_kib() - before) / ALIVE
        ready = sum(1 for keep in agent.keeps() if keep.state.value == "ready")
        line(f"of {ALIVE} keeps are ready", f"{ready} in {took:.1f} s", goal=str(ALIVE), met=ready == ALIVE)
        line("memory of each, its share of what is shared", f"{each / 1024:.1f} MiB")
        for keep in keeps:
            agent.stop(keep.id)


def _proportional_kib() -> int:
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"enarx.tcb.keep.__main__" in (process / "cmdline").read_bytes():
                rollup = (process / "smaps_rollup").read_text()
                total += next(int(it.split()[1]) for it in rollup.splitlines() if it.startswith("Pss:"))
        except OSError:
            continue  # it ended in the meantime
    return total


def throughput(address: HostAddress, trust: Trust, wasm: Path) -> None:
    """64 MiB of a workload's output, against the same over TLS between two plain processes."""
    ours, plain = [], []
    for _ in range(5):
        sink = _Counter()
        plan_deployment(wasm, address, trust=trust).run(stdout=sink.write)
        ours.append(sink.rate())
        plain.append(_plain_tls())
    mine, theirs = statistics.median(ours), statistics.median(plain)
    peer = f"plain TLS between two processes ({theirs:.0f} MB/s)"
    line("output of a workload", f"{mine:.0f} MB/s", peer=peer, ratio=mine / theirs)


class _Counter:
    """A file that tells how fast it was written."""

    def __init__(self) -> None:
        self.size, self.first, self.last = 0, 0.0, 0.0

    def write(self, data: bytes) -> int:
        self.last = time.perf_counter()
        self.first = self.first or self.last
        self.size += len(data)
        return len(data)

    def rate(self) -> float:
        return self.size / (self.last - self.first) / 1e6


def _plain_tls() -> float:
    ours, theirs = socket.socketpair()
    process = multiprocessing.get_context("fork").Process(target=_serve_plain, args=(theirs,))
    process.start()
    theirs.close()
    channel = Channel(ours)
    counter = _Counter()
    while data := channel.receive():
        counter.write(data)
    channel.close()
    process.join()
    return counter.rate()


def _serve_plain(sock: socket.socket) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now.replace(year=now.year + 1))
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_privatekey(key)
    context.use_certificate(builder.sign(key, hashes.SHA256()))
    connection = SSL.Connection(context, sock)
    connection.set_accept_state()
    connection.do_handshake()
    part = bytes(1 << 17)
    for _ in range(LARGE_BYTES // len(part)):
        connection.sendall(part)
    connection.shutdown()


if __name__ == "__main__":
    main()
