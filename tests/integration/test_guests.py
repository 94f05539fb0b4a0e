"""Guest programs, run as a user runs them: what WASI promises them, and what happens to those that misbehave."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Final

import pytest
import wasmtime

from enarx.cli._exit import ExitCode

Guest = Callable[[str], Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run: what the program is given, and how it must end. ``stderr`` is a pattern to be found."""

    guest: str
    args: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    stdin: bytes = b""
    config: str = ""
    code: int = 0
    stdout: bytes = b""
    stderr: str = ""


STREAMS: Final = "".join(f'[[files]]\nkind = "{kind}"\n' for kind in ("stdin", "stdout", "stderr"))
MANY_BYTES: Final = bytes(range(256)) * 8192

CASES: Final = {
    "no arguments": Case(guest="args", stdout=b"[main.wasm]\n"),
    "arguments": Case(
        guest="args",
        args=("", "-x", "a b", "--", "\u00fc\u20ac\U0001f512", "[]"),
        stdout="[main.wasm]\n[]\n[-x]\n[a b]\n[--]\n[\u00fc\u20ac\U0001f512]\n[[]]\n".encode(),
    ),
    "arguments of the configuration": Case(
        guest="args", config=f'args = ["one", "two"]\n{STREAMS}', stdout=b"[main.wasm]\n[one]\n[two]\n"
    ),
    "environment": Case(
        guest="env",
        args=("A", "EMPTY", "B", "PATH", "FD_COUNT", "FD_NAMES"),
        options=("--env", "A=1=2", "--env", "EMPTY="),
        config=f'{STREAMS}name = "log"\n[env]\nA = "0"\nB = "b"\n',
        stdout=b"A=1=2\nEMPTY=\nB=b\nPATH=(unset)\nFD_COUNT=3\nFD_NAMES=stdin:stdout:log\n",
    ),
    **{
        f"exit code {code}": Case(
            guest="exit", args=(str(code),), code=code, stdout=b"leaving with %d\n" % code
        )
        for code in (0, 1, 2, 31, 112, 125, 126, 127, 128, 137, 255)
    },
    "return value is ignored": Case(guest="return_1"),
    "two mebibytes through": Case(guest="echo", stdin=MANY_BYTES, stdout=MANY_BYTES, stderr=r"\A2097152\n\Z"),
    "nothing through": Case(guest="echo", stderr=r"\A0\n\Z"),
    "large buffers": Case(guest="largebuf", stdout=b"x" * (64 << 20)),
    "files": Case(guest="files"),
    "directories": Case(guest="dirs"),
    "symbolic links": Case(guest="symlinks"),
    "times": Case(guest="times"),
    "polling": Case(guest="poll"),
    "polling standard input": Case(guest="poll_stdin", stdin=b"ten bytes\n", stdout=b"10\n"),
    "polling closed standard input": Case(guest="poll_stdin", stdout=b"0\n"),
    "rights": Case(guest="rights"),
    "renumbering": Case(guest="renumber", stdout=b"before\n", stderr=r"\Aaside\n\Z"),
    "preopened root": Case(guest="prestat", stdout=b"|/|\n"),
    "random": Case(guest="random"),
    "wrong pointers": Case(guest="pointers", options=("--env", "A=b"), stdout=b"53 pointers\n"),
    "wrong descriptors": Case(guest="confusion"),
    "escapes": Case(guest="escapes"),
    "memory": Case(guest="memory"),
    "thousand files": Case(guest="manyfiles"),
    "threads": Case(guest="threads", options=("--threads",), stdout=b"all four ended.\n"),
    "threads not allowed": Case(guest="threads", code=ExitCode.MALFORMED, stderr="threads must be enabled"),
    "exit from another thread": Case(guest="thread_exit", options=("--threads",), code=7),
    "trap in another thread": Case(
        guest="thread_trap", options=("--threads",), code=ExitCode.TRAPPED, stderr="unreachable"
    ),
    "too many threads": Case(
        guest="threads",
        options=("--threads", "--limit", "threads=3"),
        code=ExitCode.THREAD_LIMIT,
        stderr="3 threads",
    ),
    "endless recursion": Case(guest="recurse", code=ExitCode.STACK_OVERFLOW, stderr="stack"),
    "endless recursion on a large stack": Case(
        guest="recurse", options=("--limit", "stack=32MiB"), code=ExitCode.STACK_OVERFLOW, stderr="stack"
    ),
    "endless loop": Case(
        guest="loop", options=("--limit", "time=300ms"), code=ExitCode.TIME_LIMIT, stderr="time"
    ),
    "endless sleep": Case(
        guest="sleep", options=("--limit", "time=300ms"), code=ExitCode.TIME_LIMIT, stderr="time"
    ),
    "endless output": Case(
        guest="spew",
        options=("--limit", "output=1000000"),
        code=ExitCode.OUTPUT_LIMIT,
        stdout=b"x" * (1_000_000 // 65536 * 65536),
        stderr="output",
    ),
    "tables": Case(guest="tables"),
    "many tables": Case(guest="many_tables", options=("--limit", "table=8000")),
}


@pytest.mark.parametrize("name", CASES)
def test_guest(name: str, guest: Guest, enarx_run: Any, tmp_path: Path) -> None:
    case = CASES[name]
    options = list(case.options)
    if case.config:
        config = tmp_path / "Enarx.toml"
        config.write_text(case.config)
        options += ["--config", str(config)]
    done = enarx_run(guest(case.guest), *case.args, options=options, stdin=case.stdin)
    assert (done.returncode, done.stderr.decode()) == (
        case.code,
        _matching(case.stderr, done.stderr.decode()),
    )
    assert done.stdout == case.stdout


def _matching(pattern: str, text: str) -> str:
    """Give back a text in which a pattern is found; without a pattern, the empty text."""
    if not pattern:
        return ""
    return text if re.search(pattern, text) else f"something like {pattern}"


# Limits that a program meets and survives.


@pytest.mark.parametrize(
    ("what", "limit", "low", "high", "errno"),
    [
        ("memory", "memory=64MiB", 500, 1024, 48),
        ("files", "files=100", 90, 100, 51),
        ("storage", "storage=10MiB", 9, 10, 51),
        ("descriptors", "descriptors=50", 40, 50, 33),
    ],
)
def test_limit_is_an_error_for_the_guest(
    what: str, limit: str, low: int, high: int, errno: int, guest: Guest, enarx_run: Any
) -> None:
    done = enarx_run(guest("hog"), what, options=("--limit", limit))
    assert (done.returncode, done.stderr) == (0, b"")
    found = re.fullmatch(rf"{what}: refused after (\d+) with (\d+)\n", done.stdout.decode())
    assert found is not None
    assert low <= int(found[1]) <= high
    assert int(found[2]) == errno


# Modules that end badly, or do not start.

TRAPS: Final = {
    "unreachable": "unreachable",
    "division by zero": "(drop (i32.div_s (i32.const 1) (i32.const 0)))",
    "remainder by zero": "(drop (i64.rem_u (i64.const 1) (i64.const 0)))",
    "division overflow": "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))",
    "not a number": "(drop (i32.trunc_f32_s (f32.const nan)))",
    "float too large": "(drop (i64.trunc_f64_u (f64.const 1e300)))",
    "load out of bounds": "(drop (i32.load (i32.const 65533)))",
    "load far out of bounds": "(drop (i64.load offset=0xFFFFFFFF (i32.const -1)))",
    "store out of bounds": "(i64.store8 (i32.const -1) (i64.const 1))",
    "fill out of bounds": "(memory.fill (i32.const 65000) (i32.const 0) (i32.const 1000))",
    "copy out of bounds": "(memory.copy (i32.const 0) (i32.const 65000) (i32.const -1))",
    "call of no table entry": "(call_indirect (type $nothing) (i32.const 99))",
    "call of a null entry": "(call_indirect (type $nothing) (i32.const 1))",
    "call of another type": "(call_indirect (type $other) (i32.const 0) (i32.const 0))",
}


@pytest.mark.parametrize("name", TRAPS)
def test_trap_has_its_message_and_code(name: str, enarx_run: Any, tmp_path: Path) -> None:
    module = f"""(module (type $nothing (func)) (type $other (func (param i32)))
        (memory (export "memory") 1 1) (table 4 funcref) (elem (i32.const 0) $f)
        (func $f) (func (export "_start") {TRAPS[name]}))"""
    done = enarx_run(_assembled(tmp_path, module))
    assert (done.returncode, done.stdout) == (ExitCode.TRAPPED, b"")
    _is_one_clear_message(done.stderr)


UNRUNNABLE: Final = {
    "no entry point": ('(module (memory (export "memory") 1))', "_start"),
    "entry that is a memory": ('(module (memory (export "_start") 1))', "_start"),
    "unknown module": ('(module (import "nowhere" "f" (func)) (func (export "_start")))', "nowhere"),
    "unknown function": (
        '(module (import "wasi_snapshot_preview1" "fd_teleport" (func)) (func (export "_start")))',
        "fd_teleport",
    ),
    "wrong type": (
        '(module (import "wasi_snapshot_preview1" "fd_close" (func (param i64))) (func (export "_start")))',
        "fd_close",
    ),
    "memory from outside": ('(module (import "env" "memory" (memory 1)) (func (export "_start")))', "memory"),
    "preview 0": (
        '(module (import "wasi_unstable" "fd_close" (func (param i32) (result i32))) (func (export "_start")))',
        "wasi_unstable",
    ),
    "component that needs more": ('(component (import "a:b/c" (func)))', "a:b/c|entry|wasi:cli"),
}


@pytest.mark.parametrize("name", UNRUNNABLE)
def test_unrunnable_module_is_refused_by_name(name: str, enarx_run: Any, tmp_path: Path) -> None:
    module, named = UNRUNNABLE[name]
    done = enarx_run(_assembled(tmp_path, module))
    assert (done.returncode, done.stdout) == (ExitCode.UNRUNNABLE, b"")
    _is_one_clear_message(done.stderr)
    assert re.search(named, done.stderr.decode())


MAGIC: Final = b"\0asm\x01\0\0\0"
MALFORMED: Final = {
    "empty file": b"",
    "magic alone, cut": MAGIC[:5],
    "later version": b"\0asm\x02\0\0\0",
    "text form": b'(module (func (export "_start")))',
    "native program": b"\x7fELF\x02\x01\x01" + bytes(200),
    "zeros": bytes(1000),
    "unknown section": MAGIC + b"\x40\x01\0",
    "section longer than the file": MAGIC + b"\x01\xff\xff\xff\xff\x0f\0",
    "endless number": MAGIC + b"\x01" + b"\x80" * 100,
    "body of the wrong type": MAGIC
    + bytes.fromhex("0105016000017f0302010007080104")
    + b"main"
    + b"\0\0\x0a\x04\x01\x02\0\x0b",
    "component, cut": b"\0asm\x0d\0\x01\0\x01",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_module_is_refused(name: str, enarx_run: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.wasm"
    path.write_bytes(MALFORMED[name])
    done = enarx_run(path)
    assert (done.returncode, done.stdout) == (ExitCode.MALFORMED, b"")
    _is_one_clear_message(done.stderr)


def test_start_function_may_trap(enarx_run: Any, tmp_path: Path) -> None:
    done = enarx_run(
        _assembled(tmp_path, '(module (func $f unreachable) (start $f) (func (export "_start")))')
    )
    assert done.returncode == ExitCode.TRAPPED
    _is_one_clear_message(done.stderr)


def test_data_segment_beyond_memory_traps(enarx_run: Any, tmp_path: Path) -> None:
    module = '(module (memory 1) (data (i32.const 65535) "ab") (func (export "_start")))'
    done = enarx_run(_assembled(tmp_path, module))
    assert done.returncode == ExitCode.TRAPPED
    _is_one_clear_message(done.stderr)


@pytest.mark.parametrize(
    ("declaration", "limit", "code"),
    [
        ("(memory 64)", "memory=1MiB", ExitCode.MEMORY_LIMIT),
        ("(table 100000 funcref)", "table=1000", ExitCode.TABLE_LIMIT),
    ],
)
def test_declared_size_beyond_the_limit(
    declaration: str, limit: str, code: int, enarx_run: Any, tmp_path: Path
) -> None:
    module = _assembled(tmp_path, f'(module {declaration} (func (export "_start")))')
    done = enarx_run(module, options=("--limit", limit))
    assert done.returncode == code
    _is_one_clear_message(done.stderr)
    assert enarx_run(module).returncode == 0


@pytest.mark.slow
def test_module_of_100_megabytes_runs_unless_forbidden(enarx_run: Any, tmp_path: Path) -> None:
    path = tmp_path / "large.wasm"
    path.write_bytes(module_with_data(100_000_000))
    assert enarx_run(path).returncode == 0
    done = enarx_run(path, options=("--limit", "module=50MiB"))
    assert done.returncode == ExitCode.MALFORMED
    _is_one_clear_message(done.stderr)


@pytest.mark.slow
def test_module_of_20_000_functions_runs(enarx_run: Any, tmp_path: Path) -> None:
    functions = "".join(
        f"(func $f{i} (param i32) (result i32) (i32.add (local.get 0) (i32.const {i})))"
        for i in range(20_000)
    )
    module = f'(module {functions} (func (export "_start") (drop (call $f19999 (i32.const 1)))))'
    assert enarx_run(_assembled(tmp_path, module)).returncode == 0


def module_with_data(size: int) -> bytes:
    """A valid module that carries ``size`` bytes of data for a memory just large enough, and an empty ``_start``."""
    pages = -(-size // 65536)
    export = _vector([_name(b"_start") + b"\0\0"])
    segment = b"\0\x41\0\x0b" + _leb(size) + bytes(size)
    sections = [
        (1, _vector([b"\x60\0\0"])),
        (3, _vector([b"\0"])),
        (5, _vector([b"\0" + _leb(pages)])),
        (7, export),
        (10, _vector([b"\x02\0\x0b"])),
        (11, _vector([segment])),
    ]
    return MAGIC + b"".join(bytes([kind]) + _leb(len(body)) + body for kind, body in sections)


def _leb(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _vector(items: list[bytes]) -> bytes:
    return _leb(len(items)) + b"".join(items)


def _name(name: bytes) -> bytes:
    return _leb(len(name)) + name


def _assembled(folder: Path, text: str) -> Path:
    path = folder / "module.wasm"
    path.write_bytes(wasmtime.wat2wasm(text))
    return path


def _is_one_clear_message(stderr: bytes) -> None:
    text = stderr.decode()
    assert text.startswith("enarx: error: "), text
    assert "Traceback" not in text
    assert len(text.splitlines()) <= 3, text


# Directories of the host.


def test_writable_directory_is_a_copy(guest: Guest, enarx_run: Any, tmp_path: Path) -> None:
    _deliver(tmp_path)
    before = _tree(tmp_path)
    done = enarx_run(guest("delivered"), options=("--dir", f"{tmp_path}::/data"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert _tree(tmp_path) == before


def test_synchronised_directory_gets_the_changes(guest: Guest, enarx_run: Any, tmp_path: Path) -> None:
    _deliver(tmp_path)
    done = enarx_run(guest("delivered"), options=("--dir", f"{tmp_path}::/data:sync"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert _tree(tmp_path) == {"in.txt": b"delivered\nchanged\n", "new.txt": b"new\n", "made": None}


def test_read_only_directory_refuses_every_change(guest: Guest, enarx_run: Any, tmp_path: Path) -> None:
    _deliver(tmp_path)
    before = _tree(tmp_path)
    done = enarx_run(guest("delivered"), "ro", options=("--dir", f"{tmp_path}::/data:ro"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert _tree(tmp_path) == before


def test_directories_are_preopened_under_their_names(guest: Guest, enarx_run: Any, tmp_path: Path) -> None:
    options = ("--dir", f"{tmp_path}::/one", "--dir", f"{tmp_path}::/two:ro")
    done = enarx_run(guest("prestat"), options=options)
    assert (done.returncode, done.stderr) == (0, b"")
    names = done.stdout.decode().strip().strip("|").split("|")
    assert {"/one", "/two"} <= set(names) <= {"/", "/one", "/two"}


def _deliver(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "in.txt").write_text("delivered\n")
    (folder / "sub" / "deep.bin").write_bytes(b"\0\1\2\xff")


def _tree(folder: Path) -> dict[str, bytes | None]:
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


# Sockets.


@pytest.mark.parametrize("prot", ["tcp", "tls"])
def test_connections_wait_retry_and_poll(prot: str, guest: Guest, serve: Any) -> None:
    modes = ["block", "nonblock", "poll", "poll", "close", "block"]
    server = serve(guest("socket"), *modes, name="in", prot=prot)
    for mode in modes:
        with server.connect() as peer:
            for line in () if mode == "close" else (b"one\n", b"two " * 50 + b"\n", b"three\n"):
                peer.sendall(line)
                assert _exactly(peer, len(line)) == line
            assert peer.recv(1) == b""
    assert server.finished() == (0, "")


@pytest.mark.parametrize("prot", ["tcp", "tls"])
def test_much_data_goes_both_ways(prot: str, guest: Guest, serve: Any) -> None:
    server = serve(guest("socket"), "echo", name="in", prot=prot)
    with server.connect() as peer:
        for _ in range(64):
            peer.sendall(MANY_BYTES[:65536])
            assert _exactly(peer, 65536) == MANY_BYTES[:65536]
        _end(peer)
    assert server.finished() == (0, "")


@pytest.mark.parametrize("prot", ["tcp", "tls"])
def test_receive_flags_and_shutdown(prot: str, guest: Guest, serve: Any) -> None:
    server = serve(guest("socket"), "flags", name="in", prot=prot)
    with server.connect() as peer:
        peer.sendall(b"abcd")
        peer.sendall(b"efghij")
        assert _exactly(peer, 5) == b"hello"
        assert peer.recv(1) == b""
        _end(peer)
    assert server.finished() == (0, "")


def test_tls_stream_that_is_cut_off_is_an_error_and_no_end(guest: Guest, serve: Any) -> None:
    server = serve(guest("socket"), "echo", name="in", prot="tls")
    with server.connect() as peer:
        peer.sendall(b"some bytes")
        assert _exactly(peer, 10) == b"some bytes"
    code, stderr = server.finished()  # closed without TLS's close_notify, as one who cuts the wire would
    assert code == 1
    assert "raw_fd_read" in stderr


def test_workload_ends_while_a_client_waits(guest: Guest, serve: Any) -> None:
    server = serve(guest("socket"), "close", name="in", prot="tls")
    silent = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    with silent, server.connect():
        assert server.finished() == (0, "")
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(1) == b""


def test_connection_to_a_server(guest: Guest, enarx_run: Any, tmp_path: Path) -> None:
    lines = [b"test\n", b"and again\n", b"and at last\n"]
    echoed: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def peer() -> None:
            connection, _ = listener.accept()
            with connection:
                for line in lines:
                    connection.sendall(line)
                    echoed.append(_exactly(connection, len(line)))

        thread = Thread(target=peer)
        thread.start()
        config = tmp_path / "Enarx.toml"
        port = listener.getsockname()[1]
        connect = f'kind = "connect"\nprot = "tcp"\nhost = "127.0.0.1"\nport = {port}\nname = "out"\n'
        config.write_text(f"{STREAMS}[[files]]\n{connect}")
        done = enarx_run(guest("connect"), options=("--config", str(config)))
        thread.join()
    assert (done.returncode, done.stderr) == (0, b"")
    assert echoed == lines


def _end(peer: socket.socket) -> None:
    """Tell the other side that no more comes: TLS has a message for it."""
    if isinstance(peer, ssl.SSLSocket):
        peer.unwrap()


def _exactly(peer: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = peer.recv(size - len(data))
        assert more, f"the stream ended after {len(data)} of {size} bytes"
        data += more
    return data


# Streams that end early, or never.


def test_reader_of_the_output_goes_away(guest: Guest, enarx_command: tuple[str, ...]) -> None:
    with subprocess.Popen(
        [*enarx_command, str(guest("spew"))], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert len(process.stdout.read(100_000)) == 100_000
        process.stdout.close()
        assert process.wait(20) in (0, ExitCode.BROKEN_PIPE)


def test_time_limit_ends_a_read_that_never_returns(guest: Guest, enarx_command: tuple[str, ...]) -> None:
    started = time.monotonic()
    command = [*enarx_command, str(guest("echo")), "--limit", "time=300ms"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.wait(20) == ExitCode.TIME_LIMIT
    assert time.monotonic() - started < 10
