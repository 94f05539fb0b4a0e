"""The same for asyncio. Each deployment has a thread of its own, which a cancellation ends together with its keep.

Observers and functions that take output are called in the event loop; they may be coroutines.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeVar

from enarx.api import agent as api
from enarx.tcb.workload import Limits, Secret
from enarx.tenant.agent_calls import HostAddress
from enarx.tenant.audit import AuditFile
from enarx.tenant.deployment import Deployment, Result, plan_deployment
from enarx.tenant.endorsement import CollateralChoice, CollateralFrom
from enarx.tenant.keep import Keep
from enarx.tenant.package import Package
from enarx.tenant.reference import KeepImage
from enarx.tenant.secret_source import SecretSource
from enarx.tenant.steps import Step
from enarx.tenant.streams import Input, Interrupt
from enarx.tenant.verification import Trust

T = TypeVar("T")
A = TypeVar("A")

AsyncObserver = Callable[[Step], Awaitable[object] | None]
AsyncOutput = BinaryIO | Callable[[bytes], Awaitable[object] | None] | None


async def deploy(
    package: Package | str | Path,
    host: HostAddress | str,
    *,
    trust: Trust | None = None,
    image: KeepImage | Path | None = None,
    secrets: Iterable[Secret | SecretSource] = (),
    arguments: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    threads: bool = False,
    tee: str = api.ANY,
    collateral: CollateralChoice = CollateralFrom.HOST,
    stdin: Input = None,
    stdout: AsyncOutput = None,
    stderr: AsyncOutput = None,
    observer: AsyncObserver = lambda step: None,
    audit: AuditFile | None = None,
) -> Result:
    """Deploy as ``enarx.tenant.deploy`` does. Raises ``EnarxError``; cancelled, it ends the keep."""
    loop = asyncio.get_running_loop()
    interrupt = Interrupt()

    def plan() -> Deployment:
        return plan_deployment(
            package,
            host,
            trust=trust,
            image=image,
            secrets=tuple(secrets),
            arguments=tuple(arguments),
            environment=tuple((environment or {}).items()),
            limits=limits or Limits(),
            threads=threads,
            tee=tee,
            collateral=collateral,
            observer=_called(observer, loop),
            audit=audit,
            interrupt=interrupt,
        )

    out, err = (it if it is None or not callable(it) else _called(it, loop) for it in (stdout, stderr))
    return await _in_thread(lambda: plan().run(stdin, out, err), interrupt)


async def attach(
    keep: Keep, stdin: Input = None, stdout: AsyncOutput = None, stderr: AsyncOutput = None
) -> Result:
    """Attach as ``Keep.attach`` does; cancelled, it lets go and the keep runs on."""
    loop = asyncio.get_running_loop()
    interrupt = Interrupt()
    out, err = (it if it is None or not callable(it) else _called(it, loop) for it in (stdout, stderr))
    return await _in_thread(lambda: replace(keep, interrupt=interrupt).attach(stdin, out, err), interrupt)


def _called(
    function: Callable[[A], Awaitable[object] | None], loop: asyncio.AbstractEventLoop
) -> Callable[[A], None]:
    """Make a function for another thread that calls ``function`` in the loop and waits for it."""

    async def call(argument: A) -> None:
        result = function(argument)
        if inspect.isawaitable(result):
            await result

    def wait(argument: A) -> None:
        asyncio.run_coroutine_threadsafe(call(argument), loop).result()

    return wait


async def _in_thread(action: Callable[[], T], interrupt: Interrupt) -> T:
    """Run ``action`` in a thread of its own; a cancellation interrupts it, and waits until it has cleaned up."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type] # without an error there is a result

    def run() -> None:
        try:
            result = action()
        except BaseException as error:
            loop.call_soon_threadsafe(settle, None, error)
        else:
            loop.call_soon_threadsafe(settle, result, None)

    threading.Thread(target=run, name="deployment", daemon=True).start()
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        interrupt.ring()
        await asyncio.wait([done])
        if not done.cancelled():
            done.exception()  # it was interrupted; nobody asks how
        raise
