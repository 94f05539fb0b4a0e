"""From a command to the first byte of a workload: cold, as a whole process, and warm, from a pool of ready keeps.

Peers: the same module with the engine's own Python package and WASI, no sandbox; and an empty Python process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Final

from examples.build import build

from bench._report import line, median_ms, timed
from enarx.host.fork_server import ForkServer
from enarx.tcb.sallyport.items import Compiled, Deliver, Exited
from enarx.tcb.sallyport.limits import MAX_BLOB_BYTES
from enarx.tcb.workload import Ending, Job, Outcome

COLD_ROUNDS: Final = 30
WARM_ROUNDS: Final = 300
IDLE_KEEPS: Final = 50
SEAL_KEY: Final = bytes(range(32))
BARE: Final = """
import sys, wasmtime
engine = wasmtime.Engine()
linker = wasmtime.Linker(engine)
linker.define_wasi()
store = wasmtime.Store(engine)
wasi = wasmtime.WasiConfig()
wasi.inherit_stdout()
store.set_wasi(wasi)
instance = linker.instantiate(store, wasmtime.Module.from_file(engine, sys.argv[1]))
instance.exports(store)["_start"](store)
"""


def main() -> None:
    """Print all figures."""
    hello = build("hello")
    cold(hello)
    with ForkServer(pool=8) as server:
        warm(server, hello.read_bytes())
    refill_and_memory()


def cold(hello: Path) -> None:
    """Time whole processes."""
    with tempfile.TemporaryDirectory() as cache:
        run = [sys.executable, "-m", "enarx", "run", str(hello), "--cache", cache]
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
        peers = {
            "an empty Python process": [sys.executable, "-c", "pass"],
            "bare wasmtime-py": [sys.executable, "-c", BARE, str(hello)],
        }
        ours: list[float] = []
        others: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(COLD_ROUNDS):  # in turn, so that what else the machine does hits all alike
            ours += timed(partial(subprocess.run, run, check=True, stdout=subprocess.DEVNULL), 1)
            for name, command in peers.items():
                others[name] += timed(
                    partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL), 1
                )
    value = median_ms(ours)
    for name, samples in others.items():
        line("cold: enarx run hello.wasm", f"{value:.0f} ms", peer=name, ratio=value / median_ms(samples))
    line("cold: fastest of all rounds", f"{min(ours) * 1000:.0f} ms", goal="median < 120 ms", met=value < 120)


def warm(server: ForkServer, module: bytes) -> None:
    """Time from asking for a keep to the first byte of its workload, with sealed code."""
    code = first_run(server, module)
    samples = []
    for _ in range(WARM_ROUNDS):
        server.wait_full()
        samples.append(one(server, Job(module=module, code=code, seal_key=SEAL_KEY)))
    value = median_ms(samples)
    p90 = sorted(samples)[int(0.9 * len(samples))] * 1000
    line("warm: request to first byte, median", f"{value:.2f} ms", goal="< 3 ms", met=value < 3)
    line("warm: request to first byte, 90 %", f"{p90:.2f} ms")


def first_run(server: ForkServer, module: bytes) -> bytes:
    """Let a keep compile the module and give the sealed code."""
    keep = server.take()
    with open(os.devnull, "r+b") as null:
        job = Job(module=module, seal_key=SEAL_KEY)
        keep.channel.send(Deliver(header=job.header(), size=job.size), [null.fileno()] * 3)
        keep.channel.send_blob(job.blobs())
        while not isinstance(item := keep.channel.receive()[0], Compiled):
            pass
        sealed = bytes(keep.channel.receive_blob(item.size, MAX_BLOB_BYTES))
        keep.channel.receive()
    keep.end()
    return sealed


def one(server: ForkServer, job: Job) -> float:
    """Run ``job`` once and give the seconds until its first byte."""
    source, sink = os.pipe()
    started = time.perf_counter()
    keep = server.take()
    keep.channel.send(Deliver(header=job.header(), size=job.size), (sink, sink, sink))
    keep.channel.send_blob(job.blobs())
    first = os.read(source, 1)
    elapsed = time.perf_counter() - started
    item, _ = keep.channel.receive()
    assert first == b"H"
    assert isinstance(item, Exited)
    assert Outcome.from_value(item.outcome).ending is Ending.EXITED
    keep.end()
    os.close(source)
    os.close(sink)
    return elapsed


def refill_and_memory() -> None:
    """Fill a large pool: how fast, and what an idle keep takes."""
    with ForkServer(pool=1) as warm_up:
        warm_up.wait_full()
    with ForkServer(pool=IDLE_KEEPS) as server:
        server.take().end()  # the server itself is up
        started = time.perf_counter()
        server.wait_full()
        rate = (IDLE_KEEPS - 1) / (time.perf_counter() - started)
        line("refill of the pool", f"{rate:.0f} keeps/s", goal=">= 100/s", met=rate >= 100)
        pss = [memory_kib(keep.pid) for keep in list(server.ready)]
        line(f"memory of an idle keep ({len(pss)} alive)", f"{sum(pss) / len(pss) / 1024:.1f} MiB")


def memory_kib(pid: int) -> int:
    """Give the proportional set size of a process."""
    for entry in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if entry.startswith("Pss:"):
            return int(entry.split()[1])
    return 0


if __name__ == "__main__":
    main()
