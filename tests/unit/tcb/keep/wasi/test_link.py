"""Host functions over the unchecked convention: arguments, results, errors, and the self-test that guards them."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import pytest
from wasmtime import Engine, Module, Store, Trap, WasmtimeError, wat2wasm

from enarx.tcb.errors import EnarxError
from enarx.tcb.keep.wasi import _link
from enarx.tcb.keep.wasi._abi import Errno, WasiError
from enarx.tcb.keep.wasi._link import SELF_TEST_MODULE, HostFunctions, self_test
from enarx.tcb.keep.wasi._memory import GuestMemory


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


def call(engine: Engine, function: Any, signature: str = "ii") -> tuple[int, HostFunctions]:
    """Let a guest call ``function`` with 1, 2, … and give what it got."""
    functions = HostFunctions(GuestMemory())
    functions.define("t", "f", signature, function)
    params = " ".join("i32" if letter == "i" else "i64" for letter in signature)
    arguments = " ".join(
        f"({'i32' if letter == 'i' else 'i64'}.const {number})" for number, letter in enumerate(signature, 1)
    )
    text = f"""(module (import "t" "f" (func $f (param {params}) (result i32))) (memory (export "memory") 1)
               (func (export "run") (result i32) (call $f {arguments})))"""
    store = Store(engine)
    run = functions.link(engine).instantiate(store, Module(engine, text)).exports(store)["run"]
    return run(store), functions  # type: ignore[operator]


@pytest.mark.parametrize("signature", ["i", "ii", "iIi", "iiii", "iiiIi", "iiiiii", "iiiiiIIii"])
def test_arguments_arrive_in_order(engine: Engine, signature: str) -> None:
    seen: list[tuple[int, ...]] = []

    def function(*arguments: int) -> int:
        seen.append(arguments)
        return 42

    assert call(engine, function, signature)[0] == 42
    assert seen == [tuple(range(1, len(signature) + 1))]


def test_an_errno_is_the_result(engine: Engine) -> None:
    def function(*_: int) -> int:
        raise WasiError(Errno.NOTDIR)

    assert call(engine, function)[0] == Errno.NOTDIR


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (errno.EPIPE, Errno.PIPE),
        (errno.EAGAIN, Errno.AGAIN),
        (errno.ECONNRESET, Errno.CONNRESET),
        (9999, Errno.IO),
    ],
)
def test_an_error_of_the_system_becomes_its_errno(engine: Engine, system: int, expected: Errno) -> None:
    def function(*_: int) -> int:
        raise OSError(system, "x")

    assert call(engine, function)[0] == expected


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError])
def test_any_other_exception_ends_the_guest_and_is_kept(engine: Engine, kind: type[BaseException]) -> None:
    functions = HostFunctions(GuestMemory())

    def function(*_: int) -> int:
        raise kind("boom")

    functions.define("t", "f", "", function)
    text = '(module (import "t" "f" (func $f (result i32))) (func (export "run") (drop (call $f))))'
    store = Store(engine)
    run = functions.link(engine).instantiate(store, Module(engine, text)).exports(store)["run"]
    with pytest.raises((Trap, WasmtimeError)):
        run(store)  # type: ignore[operator]
    assert isinstance(functions.failure, kind)


def test_the_first_failure_is_kept(engine: Engine) -> None:
    functions = HostFunctions(GuestMemory())
    functions.failure = first = RuntimeError("first")

    def function(*_: int) -> int:
        raise ValueError("second")

    functions.define("t", "f", "", function)
    text = '(module (import "t" "f" (func $f (result i32))) (func (export "run") (drop (call $f))))'
    store = Store(engine)
    run = functions.link(engine).instantiate(store, Module(engine, text)).exports(store)["run"]
    with pytest.raises((Trap, WasmtimeError)):
        run(store)  # type: ignore[operator]
    assert functions.failure is first


def test_a_replaced_body_is_what_a_linked_guest_calls(engine: Engine) -> None:
    functions = HostFunctions(GuestMemory())
    functions.define("t", "f", "", lambda: 1)
    text = '(module (import "t" "f" (func $f (result i32))) (func (export "run") (result i32) (call $f)))'
    store = Store(engine)
    run = functions.link(engine).instantiate(store, Module(engine, text)).exports(store)["run"]
    assert run(store) == 1  # type: ignore[operator]
    functions.replace("t", "f", lambda: 2)
    assert run(store) == 2  # type: ignore[operator]


def test_a_module_left_out_does_not_link(engine: Engine) -> None:
    functions = HostFunctions(GuestMemory())
    functions.define("t", "f", "", lambda: 1)
    with pytest.raises(WasmtimeError, match="unknown import"):
        functions.link(engine, without="t").instantiate(
            Store(engine), Module(engine, '(module (import "t" "f" (func (result i32))))')
        )


def test_self_test_passes_here(engine: Engine) -> None:
    self_test(engine)


def test_self_test_notices_another_convention(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    spread = _link._spread

    def shifted(function: Any, masks: list[int]) -> Any:
        return spread(lambda *arguments: function(*reversed(arguments)), masks)

    monkeypatch.setattr(_link, "_spread", shifted)
    with pytest.raises(EnarxError, match="does not pass arguments"):
        self_test(engine)


def test_the_self_test_module_is_what_its_comment_says() -> None:
    lines = Path(_link.__file__).read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("# (module"))
    text = "\n".join(re.sub(r"^# ?", "", line) for line in lines[first : first + 9] if line.startswith("#"))
    assert bytes(wat2wasm(text)) == SELF_TEST_MODULE
