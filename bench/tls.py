"""TLS echo: a workload behind the keep's TLS, beside the same server in plain Python and in C, in one run.

Client and servers share one processor, so that what is compared is work and not how fast the machine wakes up. The
C peer needs a compiler and OpenSSL's headers (Debian: gcc, libssl-dev); without them its lines are missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from examples.build import compile_source

from bench._report import line
from enarx.tcb.keep.tls import self_signed

HERE: Final = Path(__file__).parent
SECONDS: Final = 2.0
ROUNDS: Final = 3
SMALL: Final = bytes(64)
BULK: Final = bytes(64 << 20)
BLOCK: Final = 1 << 16
GOAL: Final = 0.8
CONFIG: Final = """
[[files]]
kind = "null"
[[files]]
kind = "null"
[[files]]
kind = "stderr"
[[files]]
kind = "listen"
prot = "tls"
name = "echo"
addr = "127.0.0.1"
port = {port}
"""


def main() -> None:
    """Print requests and megabytes a second of each server, and our ratios to the others."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        servers = commands(Path(folder))
        best: dict[str, tuple[float, float]] = dict.fromkeys(servers, (0.0, 0.0))
        for _ in range(ROUNDS):
            for name, (port, command) in servers.items():
                with running(command, port):
                    rate, speed = requests(port), bulk(port)
                best[name] = max(best[name][0], rate), max(best[name][1], speed)
    ours = best.pop("keep")
    for name, (rate, speed) in best.items():
        goal = f">= {GOAL}" if name == "Python" else ""
        for what, mine, theirs in (
            ("64 bytes", f"{ours[0]:.0f} req/s", ours[0] / rate),
            ("64 MiB", f"{ours[1]:.0f} MB/s", ours[1] / speed),
        ):
            peer = f"the server in {name}"
            line(f"TLS echo of {what}", mine, peer=peer, ratio=theirs, goal=goal, met=theirs >= GOAL)


def commands(folder: Path) -> dict[str, tuple[int, list[str]]]:
    """Give each server's port and command."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    credential = self_signed("echo", now=datetime.now(UTC))
    certificate.write_bytes(credential.chain[0].public_bytes(Encoding.PEM))
    key.write_bytes(credential.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    wasm = compile_source(HERE / "guests" / "echo.c", folder / "echo.wasm")
    ports = [free_port() for _ in range(3)]
    (folder / "Enarx.toml").write_text(CONFIG.format(port=ports[0]))
    run = [
        sys.executable,
        "-m",
        "enarx",
        "run",
        str(wasm),
        "--config",
        str(folder / "Enarx.toml"),
        "--no-cache",
    ]
    peer = [sys.executable, str(HERE / "peers" / "echo.py"), str(ports[1]), str(certificate), str(key)]
    servers = {"keep": (ports[0], run), "Python": (ports[1], peer)}
    compiler, binary = shutil.which("cc"), folder / "echo"
    if compiler and Path("/usr/include/openssl/ssl.h").exists():
        source = str(HERE / "peers" / "echo.c")
        subprocess.run([compiler, "-O2", "-o", str(binary), source, "-lssl", "-lcrypto"], check=True)
        servers["C"] = (ports[2], [str(binary), str(ports[2]), str(certificate), str(key)])
    return servers


def free_port() -> int:
    """Give a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """Run a server until the block ends."""
    with subprocess.Popen(command) as process:
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    connected(port).close()
                    break
                except OSError:
                    if time.monotonic() > deadline or process.poll() is not None:
                        raise
                    time.sleep(0.05)
            yield
        finally:
            process.terminate()


def connected(port: int) -> ssl.SSLSocket:
    """Connect as a client that trusts everybody: what is measured is not who answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(plain)


def goodbye(stream: ssl.SSLSocket) -> None:
    """End the stream properly; not every server answers in kind."""
    with contextlib.suppress(ssl.SSLError, OSError):
        stream.unwrap()


def requests(port: int) -> float:
    """Send small messages one after another; give how many a second come back."""
    with connected(port) as stream:
        buffer = bytearray(len(SMALL))
        count, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < SECONDS:
            stream.sendall(SMALL)
            received = 0
            while received < len(SMALL):
                received += stream.recv_into(buffer)
            count += 1
        goodbye(stream)
        return count / elapsed


def bulk(port: int) -> float:
    """Send much in blocks of 64 KiB and take each back; give the megabytes a second each way."""
    with connected(port) as stream:
        view, buffer = memoryview(BULK), bytearray(BLOCK)
        received, started = 0, time.perf_counter()
        for at in range(0, len(BULK), BLOCK):
            stream.sendall(view[at : at + BLOCK])
            while received < at + BLOCK:
                received += stream.recv_into(buffer)
        elapsed = time.perf_counter() - started
        goodbye(stream)
        return len(BULK) / elapsed / 1e6


if __name__ == "__main__":
    main()
