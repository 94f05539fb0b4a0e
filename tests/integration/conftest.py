"""What the tests of whole programs share: compiling a guest and running it as ``enarx run`` does for a user."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import pytest
from examples.build import OUTPUT, build, compile_source

from ketuvim.system import DEVICE, Kvm

ROOT: Final = Path(__file__).resolve().parents[2]
ENARX: Final = (sys.executable, "-m", "enarx.cli", "run")
START_S: Final = 20.0
"""How long a server may take to listen on a machine that is busy with other tests."""


class EnarxRun(Protocol):
    def __call__(
        self,
        wasm: Path,
        *arguments: str,
        options: Sequence[str] = (),
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60,
    ) -> subprocess.CompletedProcess[bytes]: ...


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep compiled code of the tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENARX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def enarx_command() -> tuple[str, ...]:
    """How ``enarx run`` is started."""
    return ENARX


@pytest.fixture(scope="session")
def enarx_run() -> EnarxRun:
    """Run a module to its end: ``enarx run WASM OPTIONS -- ARGUMENTS``."""

    def run(
        wasm: Path,
        *arguments: str,
        options: Sequence[str] = (),
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60,
    ) -> subprocess.CompletedProcess[bytes]:
        command = [*ENARX, str(wasm), *options, *(("--", *arguments) if arguments else ())]
        environment = {**os.environ, **(env or {})}
        return subprocess.run(
            command, input=stdin, capture_output=True, timeout=timeout_s, cwd=ROOT, env=environment
        )

    return run


@pytest.fixture(scope="session")
def example() -> Callable[[str], Path]:
    """Compile the example of a name."""
    return build


@pytest.fixture(scope="session")
def guest() -> Callable[[str], Path]:
    """Compile the guest program of a name in ``tests/guests``."""

    def compile_guest(name: str) -> Path:
        folder = ROOT / "tests" / "guests"
        source = next(path for path in (folder / f"{name}.c", folder / f"{name}.wat") if path.exists())
        return compile_source(source, OUTPUT / "guests" / f"{name}.wasm")

    return compile_guest


class Server:
    """A running ``enarx run`` whose workload listens on ``port``."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, prot: str) -> None:
        self.process, self.port, self.prot = process, port, prot

    def finished(self, timeout_s: float = 20) -> tuple[int, str]:
        """Wait for the end; gives exit code and standard error."""
        _, stderr = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, stderr.decode()

    def connect(self, timeout_s: float = 10) -> socket.socket:
        """A new connection; over TLS without a check of the certificate, which is the keep's own."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)
        if self.prot == "tcp":
            return plain
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(plain)


class Serve(Protocol):
    def __call__(self, wasm: Path, *arguments: str, name: str, prot: str) -> Server: ...


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers that are stopped when the test ends."""
    with _servers(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def serve_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start servers that all tests of a module share."""
    with _servers(tmp_path_factory.mktemp("serve")) as start:
        yield start


@contextmanager
def _servers(folder: Path) -> Iterator[Serve]:
    running: list[subprocess.Popen[bytes]] = []

    def start(wasm: Path, *arguments: str, name: str, prot: str) -> Server:
        port = free_port()
        config = folder / f"Enarx-{port}.toml"
        config.write_text(listen_config(name=name, prot=prot, port=port))
        command = [*ENARX, str(wasm), "--config", str(config), *(("--", *arguments) if arguments else ())]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT)
        running.append(process)
        _wait_for_listener(process, port)
        return Server(process, port, prot)

    try:
        yield start
    finally:
        for process in running:
            process.kill()
            process.communicate()


def listen_config(*, name: str, prot: str, port: int) -> str:
    """An ``Enarx.toml`` with the three standard streams and one listener on descriptor 3."""
    streams = "".join(f'[[files]]\nkind = "{kind}"\n' for kind in ("stdin", "stdout", "stderr"))
    listener = f'kind = "listen"\nprot = "{prot}"\nname = "{name}"\naddr = "127.0.0.1"\nport = {port}\n'
    return f"{streams}[[files]]\n{listener}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_for_listener(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until the kernel lists the port as listening; a trial connection would be one that the guest counts."""
    deadline = time.monotonic() + START_S
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    while wanted not in Path("/proc/net/tcp").read_text():
        if process.poll() is not None:
            assert process.stderr is not None
            raise AssertionError(
                f"the server ended with {process.returncode}: {process.stderr.read().decode()}"
            )
        assert time.monotonic() < deadline, f"nothing listens on port {port} after {START_S} s"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def kvm() -> Iterator[Kvm]:
    """The machine's KVM; a test that needs it is reported as skipped where there is none, and fails in CI."""
    if not Path(DEVICE).exists():
        pytest.skip(f"needs {DEVICE}")
    with Kvm.open() as opened:
        yield opened
