"""A processor in a thread of its own, with an end that can be waited for and brought about."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, Self, TypeVar

from ketuvim.vcpu import VirtualCpu

Result = TypeVar("Result")


class VcpuThread(Generic[Result]):
    """Runs ``work(vcpu)``, which must end when a run gives ``Interrupted``: ``Bus.serve`` and ``VirtualCpu.run`` do.

    A ``with`` block stops it at its end.
    """

    __slots__ = ("_future", "_thread", "vcpu")

    def __init__(self, vcpu: VirtualCpu, work: Callable[[VirtualCpu], Result]) -> None:
        self.vcpu = vcpu
        self._future: Future[Result] = Future()
        self._thread = threading.Thread(target=self._run, args=(work,), name=f"vcpu {vcpu.id}", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Say whether it has ended."""
        return self._future.done()

    def result(self, timeout_s: float | None = None) -> Result:
        """Wait for the end; give what ``work`` gave, or raise what it raised (``TimeoutError`` when it goes on)."""
        return self._future.result(timeout_s)

    def stop(self) -> None:
        """Stop the guest, and wait for the end of the thread."""
        if not self.done:
            self.vcpu.stop()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self, work: Callable[[VirtualCpu], Result]) -> None:
        try:
            self._future.set_result(work(self.vcpu))
        except BaseException as error:  # handed to whoever asks for the result
            self._future.set_exception(error)
