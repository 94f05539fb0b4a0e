"""Keeps as processes: killed, orphaned, forged code, and the fork server's pool."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from wasmtime import wat2wasm

from enarx.cli._exit import ExitCode
from enarx.host.fork_server import ForkServer
from enarx.host.keep_process import KeepNotStarted
from enarx.tcb.sallyport.items import Deliver, Exited
from enarx.tcb.sallyport.socket_channel import ChannelClosed
from enarx.tcb.workload import Ending, Job, Outcome

HELLO = bytes(
    wat2wasm("""(module
      (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 0) "\\08\\00\\00\\00\\03\\00\\00\\00hi\\n")
      (func (export "_start") (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))""")
)
LOOP = bytes(wat2wasm('(module (func (export "_start") (loop $l (br $l))))'))
WAIT_S = 20.0


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    path = tmp_path / "hello.wasm"
    path.write_bytes(HELLO)
    return path


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    path = tmp_path / "loop.wasm"
    path.write_bytes(LOOP)
    return path


def enarx_run(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "enarx", "run", *map(str, arguments)]


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def keep_of(pid: int) -> int:
    """Wait for the confined process below ``enarx run`` to work, and give its number."""
    found: list[int] = []

    def working() -> bool:
        found[:] = [keep for parent in children(pid) for keep in children(parent)]
        return bool(found) and "Seccomp:\t2" in Path(f"/proc/{found[0]}/status").read_text()

    until(working, "the keep")
    return found[0]


def alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_killed_keep_is_reported(loop: Path) -> None:
    with subprocess.Popen(enarx_run(loop, "--no-cache"), stderr=subprocess.PIPE) as process:
        os.kill(keep_of(process.pid), signal.SIGKILL)
        _, told = process.communicate(timeout=WAIT_S)
    assert process.returncode == ExitCode.KEEP_LOST
    assert b"killed by SIGKILL" in told


def test_a_keep_does_not_outlive_its_host(loop: Path) -> None:
    with subprocess.Popen(enarx_run(loop, "--no-cache"), stderr=subprocess.DEVNULL) as process:
        keep = keep_of(process.pid)
        process.kill()
    until(lambda: not alive(keep), "the end of the keep")


@pytest.mark.parametrize(
    "forge",
    [
        lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 1]),
        lambda sealed: bytes([sealed[0] ^ 1]) + sealed[1:],
        lambda sealed: sealed[: len(sealed) // 2],
        lambda sealed: b"",
        lambda sealed: b"\x7fELF" * 1000,
    ],
    ids=["flipped code", "flipped MAC", "truncated", "empty", "something else"],
)
def test_forged_code_is_compiled_anew(hello: Path, tmp_path: Path, forge: Callable[[bytes], bytes]) -> None:
    cache = tmp_path / "cache"
    command = enarx_run(hello, "--cache", cache)
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"hi\n"
    (entry,) = cache.glob("*.sealed")
    genuine = entry.read_bytes()
    entry.write_bytes(forge(genuine))
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"hi\n"
    assert len(entry.read_bytes()) == len(genuine), "the forged entry was not replaced"
    assert entry.read_bytes() != forge(genuine)


def test_code_sealed_under_another_key_is_compiled_anew(hello: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for cache in (ours, theirs):
        subprocess.run(enarx_run(hello, "--cache", cache), capture_output=True, check=True)
    (entry,) = ours.glob("*.sealed")
    foreign = (theirs / entry.name).read_bytes()
    entry.write_bytes(foreign)
    assert (
        subprocess.run(enarx_run(hello, "--cache", ours), capture_output=True, check=True).stdout == b"hi\n"
    )
    assert entry.read_bytes() != foreign


def run_in(server: ForkServer, module: bytes) -> tuple[bytes, Outcome]:
    source, sink = os.pipe()
    keep = server.take()
    job = Job(module=module)
    keep.channel.send(Deliver(header=job.header(), size=job.size), (source, sink, sink))
    keep.channel.send_blob(job.blobs())
    os.close(sink)
    while not isinstance(item := keep.channel.receive()[0], Exited):
        pass
    keep.end()
    with os.fdopen(source, "rb") as output:
        return output.read(), Outcome.from_value(item.outcome)


def test_keeps_of_a_pool_run_and_are_replaced() -> None:
    with ForkServer(pool=2, require_sandbox=True) as server:
        for _ in range(5):
            output, outcome = run_in(server, HELLO)
            assert output == b"hi\n"
            assert (outcome.ending, outcome.code) == (Ending.EXITED, 0)
        server.wait_full()
        assert len({keep.pid for keep in server.ready}) == 2


def test_leaving_the_fork_server_ends_its_keeps() -> None:
    with ForkServer(pool=3) as server:
        server.wait_full()
        pids = [keep.pid for keep in server.ready]
        assert all(map(alive, pids))
    until(lambda: not any(map(alive, pids)), "the end of the keeps")
    with pytest.raises(KeepNotStarted):
        server.take()


def test_a_keep_whose_host_hangs_up_ends_in_the_middle_of_its_work() -> None:
    with ForkServer(pool=1) as server:
        keep = server.take()
        job = Job(module=LOOP)
        with open(os.devnull, "r+b") as null:
            keep.channel.send(Deliver(header=job.header(), size=job.size), [null.fileno()] * 3)
        keep.channel.send_blob(job.blobs())
        keep.channel.receive()  # it compiles
        keep.end()
        until(lambda: not alive(keep.pid), "the end of the keep")


def test_a_killed_keep_of_the_pool_closes_its_channel() -> None:
    with ForkServer(pool=1) as server:
        keep = server.take()
        os.kill(keep.pid, signal.SIGKILL)
        with pytest.raises(ChannelClosed):
            keep.channel.receive()
        keep.end()
        assert run_in(server, HELLO)[0] == b"hi\n"


def test_keeps_of_a_pool_share_no_randomness() -> None:
    """Forked processes that shared a generator's state would agree on keys."""
    module = bytes(
        wat2wasm("""(module
          (import "wasi_snapshot_preview1" "random_get" (func $r (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1) (data (i32.const 0) "\\40\\00\\00\\00\\20\\00\\00\\00")
          (func (export "_start") (drop (call $r (i32.const 64) (i32.const 32)))
            (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))""")
    )
    with ForkServer(pool=4) as server:
        server.wait_full()
        drawn = [run_in(server, module)[0] for _ in range(8)]
    assert len(set(drawn)) == len(drawn)
    assert all(len(one) == 32 for one in drawn)
