"""Computation in a keep's engine beside the same module in the engine's own Python package, one run, in turn."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from examples.build import compile_source
from wasmtime import Engine, Func, Linker, Module, Store, WasiConfig

from bench._report import line
from enarx.tcb.keep.code_cache import CodeCache
from enarx.tcb.keep.engine import load_code
from enarx.tcb.keep.runner import Run, prepare
from enarx.tcb.keep.world import lay_out
from enarx.tcb.workload import Ending, Job, Outcome, running_config

ROUNDS: Final = 9
SOURCE: Final = Path(__file__).parent / "guests" / "compute.c"


def main() -> None:
    """Print the ratio of the medians."""
    with tempfile.TemporaryDirectory() as folder:
        binary = compile_source(SOURCE, Path(folder) / "compute.wasm").read_bytes()
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(in_a_keep(binary))
            theirs.append(bare(binary))
    ratio = statistics.median(ours) / statistics.median(theirs)
    value = f"{statistics.median(ours):.3f} s"
    line(
        "compute (sieve, sort, integer mixing)",
        value,
        peer="bare wasmtime-py",
        ratio=ratio,
        goal="<= 1.02",
        met=ratio <= 1.02,
    )


def in_a_keep(binary: bytes) -> float:
    """Time the module's run as a keep runs it."""
    runtime = prepare()
    job = Job(module=binary)
    world = lay_out(job, running_config(job), (0, 1, 2), ())
    module = load_code(
        runtime.engine, binary, Module, CodeCache(key=b"", sealed=b"", made_from=()), lambda: None
    )
    runtime.guest.set_up(arguments=world.arguments, environment=world.environment, table=world.table)
    outcomes: list[Outcome] = []
    run = Run(runtime, module, job.limits, world.files, outcomes.append)
    started = time.perf_counter()
    run.main()
    elapsed = time.perf_counter() - started
    assert (outcomes[0].ending, outcomes[0].code) == (Ending.EXITED, 0)
    return elapsed


def bare(binary: bytes) -> float:
    """Time the module's run with nothing of ours."""
    engine = Engine()
    linker = Linker(engine)
    linker.define_wasi()
    store = Store(engine)
    store.set_wasi(WasiConfig())
    module = Module(engine, binary)
    started = time.perf_counter()
    entry = linker.instantiate(store, module).exports(store)["_start"]
    assert isinstance(entry, Func)
    entry(store)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
