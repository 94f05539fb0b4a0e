"""Run a WASI 0.2 command component.

Here the engine's own WASI serves the guest, over the standard streams of this process and directories of a private
file system that exists for this keep alone (``lockdown``, profile COMPONENT). What it cannot do is refused at the
start: sockets, threads, and a configuration that gives the standard numbers to something else.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Final

from wasmtime import Engine, ExitTrap, Store, Trap, WasiConfig, WasmtimeError
from wasmtime.component import Component, Func, Instance, Linker

from enarx.tcb.errors import EnarxError
from enarx.tcb.keep.engine import first_line
from enarx.tcb.keep.native_files import NativeFiles
from enarx.tcb.keep.runner import LimitReached, trapped, unlinkable
from enarx.tcb.keep.world import PROGRAM_NAME, OutputBudget
from enarx.tcb.workload import Config, Ending, Job, Null, Outcome, Stderr, Stdin, Stdout

RUN_INTERFACE: Final = "wasi:cli/run@0.2."
MAX_INSTANCES: Final = 64
"""Core instances of one component: a program in an interpreted language has about ten."""
PUMP_BYTES: Final = 1 << 16
"""What is copied at once when output is counted."""
STREAMS: Final = ((Stdin, "stdin"), (Stdout, "stdout"), (Stderr, "stderr"))


class UnsupportedComponent(EnarxError):
    """The engine cannot give a component what the delivery wants for it."""


def check_supported(job: Job, config: Config) -> None:
    """Refuse what a component would not get. Raises ``UnsupportedComponent``."""
    if job.threads:
        raise UnsupportedComponent("threads are for modules, components have none", hint="drop --threads")
    for fd, entry in enumerate(config.files):
        if fd > 2 or not isinstance(entry, Null | STREAMS[fd][0]):
            raise UnsupportedComponent(
                f"files[{fd}]: a component takes {', '.join(name for _, name in STREAMS)} or null in this order"
                f", found {entry.kind}",
                hint="sockets and other descriptors need a WASI preview 1 module",
            )


class ComponentRun:
    """One component from its instance to its end."""

    def __init__(
        self, engine: Engine, component: Component, job: Job, config: Config, files: NativeFiles
    ) -> None:
        self._engine = engine
        self._component = component
        self._job = job
        self._config = config
        self._files = files

    def main(self, stdio: Sequence[int], end: Callable[[Outcome], None]) -> None:
        """Run the command and tell how it ended, when all its output has gone."""
        pumps = _redirect(stdio, self._job.limits.output_bytes, end)
        outcome = self._run()
        for fd in (1, 2):
            os.close(fd)  # ends the pumps, if there are any
        for pump in pumps:
            pump.join()
        end(outcome)

    def _run(self) -> Outcome:
        limits = self._job.limits
        store = Store(self._engine)
        store.set_limits(
            memory_size=limits.memory_bytes, table_elements=limits.table_elements, instances=MAX_INSTANCES
        )
        store.set_wasi(self._wasi())
        try:
            linker = Linker(self._engine)
            linker.add_wasip2()
            entry = self._entry(store, linker.instantiate(store, self._component))
            if entry is None:
                return Outcome(
                    ending=Ending.UNLINKABLE,
                    detail="the component exports no wasi:cli/run of WASI 0.2",
                    hint="build a command component; services (wasi:http) are not supported yet",
                )
            answer = entry(store)
            return Outcome(ending=Ending.EXITED, code=int(getattr(answer, "tag", "ok") == "err"))
        except ExitTrap as error:
            return Outcome(ending=Ending.EXITED, code=error.code)
        except Trap as error:
            return trapped(error, limits)
        except WasmtimeError as error:
            return unlinkable(first_line(error))

    def _entry(self, store: Store, instance: Instance) -> Func | None:
        for name in self._component.type.exports(self._engine):
            if name.startswith(RUN_INTERFACE):
                interface = instance.get_export_index(store, name)
                index = instance.get_export_index(store, "run", interface)
                return None if index is None else instance.get_func(store, index)
        return None

    def _wasi(self) -> WasiConfig:
        """Give the component what the configuration names; everything else is denied by default."""
        wasi = WasiConfig()
        wasi.argv = [PROGRAM_NAME, *self._config.args]
        wasi.env = [variable.split("=", 1) for variable in self._config.environ]
        for entry in self._config.files:
            match entry:
                case Stdin():
                    wasi.inherit_stdin()
                case Stdout():
                    wasi.inherit_stdout()
                case Stderr():
                    wasi.inherit_stderr()
        for place in self._files.places:
            wasi.preopen_dir(place.path, place.name, place.writable)
        return wasi


def _redirect(
    stdio: Sequence[int], limit: int | None, end: Callable[[Outcome], None]
) -> Sequence[threading.Thread]:
    """Make the delivered streams those of this process, through pumps that count when output is limited."""
    os.dup2(stdio[0], 0)
    if limit is None:
        os.dup2(stdio[1], 1)
        os.dup2(stdio[2], 2)
        return ()
    budget = OutputBudget(limit)
    return [_pump(fd, stdio[fd], budget, end) for fd in (1, 2)]


def _pump(fd: int, target: int, budget: OutputBudget, end: Callable[[Outcome], None]) -> threading.Thread:
    source, sink = os.pipe()
    os.dup2(sink, fd)
    os.close(sink)

    def run() -> None:
        try:
            while data := memoryview(os.read(source, PUMP_BYTES)):
                budget.spend(len(data))
                while data:
                    data = data[os.write(target, data) :]
        except LimitReached as reached:
            end(Outcome(ending=reached.ending, detail=str(reached), hint=reached.hint))
        except OSError:
            return  # nobody reads any more; closing our end tells the component
        finally:
            os.close(source)

    pump = threading.Thread(target=run, daemon=True)
    pump.start()
    return pump
