"""Host functions for the engine, defined over its unchecked calling convention.

The engine hands an unchecked function an array of 16-byte slots, arguments in, result out in the first slot. Nothing
but ``SIGNATURES`` ties the declared type to what the function reads, so ``self_test`` proves the convention anew in
each process before a guest is loaded. The checked path of the same engine costs thirty times as much a call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from wasmtime import Engine, FuncType, Linker, Module, Store, Trap, ValType, WasmtimeError
from wasmtime import _ffi as ffi

from enarx.tcb.errors import EnarxError
from enarx.tcb.keep.wasi._abi import WasiError, errno_of
from enarx.tcb.keep.wasi._memory import GuestMemory

_M32: Final = 0xFFFFFFFF
_M64: Final = 0xFFFFFFFFFFFFFFFF

_Callback: Final = ctypes.CFUNCTYPE(
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint64), ctypes.c_size_t
)
"""Environment, caller, slots, number of slots; gives a trap or null."""

_library: Final = ctypes.CDLL(ffi.dll._name)

_define: Final = _library.wasmtime_linker_define_func_unchecked
_define.restype = ctypes.c_void_p
_define.argtypes = [
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.c_size_t,
    ctypes.c_char_p,
    ctypes.c_size_t,
    ctypes.c_void_p,
    _Callback,
    ctypes.c_void_p,
    ctypes.c_void_p,
]

_trap_new: Final = _library.wasmtime_trap_new
_trap_new.restype = ctypes.c_void_p
_trap_new.argtypes = [ctypes.c_char_p, ctypes.c_size_t]

Function = Callable[..., int | None]
"""Takes the guest's numbers, unsigned; gives an ``errno``. Raises ``WasiError``, or anything else to end the guest."""


class HostFunctions:
    """Functions of ours under the names that a guest imports, and what ended the guest if one of them did.

    Defining one makes machine code, which a confined process cannot; giving it another body or linking it does not.
    """

    def __init__(self, memory: GuestMemory) -> None:
        self.failure: BaseException | None = None
        self._memory = memory
        self._defined: dict[tuple[str, str], _Defined] = {}

    def define(
        self, module: str, name: str, signature: str, function: Function, *, result: bool = True
    ) -> None:
        """Define ``module.name``; ``signature`` has ``i`` for each 32-bit and ``I`` for each 64-bit parameter."""
        body = _Body([_M32 if letter == "i" else _M64 for letter in signature], function)
        self._defined[module, name] = _Defined(signature, result, body, _Callback(self._guarded(body)))

    def replace(self, module: str, name: str, function: Function) -> None:
        """Let ``function`` be what ``module.name`` does from now on."""
        self._defined[module, name].body.set(function)

    def link(self, engine: Engine, *, without: str = "") -> Linker:
        """Give a linker for ``engine`` that has all functions but those of the module ``without``."""
        linker = Linker(engine)
        target = ctypes.cast(linker.ptr(), ctypes.c_void_p)
        for (module, name), it in self._defined.items():
            if module != without:
                place, entry = module.encode(), name.encode()
                functype = it.functype()  # a type belongs to the first engine that it meets
                kind = ctypes.cast(functype.ptr(), ctypes.c_void_p)
                if _define(target, place, len(place), entry, len(entry), kind, it.callback, None, None):
                    raise EnarxError(f"the engine refuses the host function {module}.{name}")
        return linker

    def _guarded(self, body: _Body) -> Callable[..., int | None]:
        """Wrap ``body`` so that it takes its arguments from the slots and no exception leaves it."""
        memory, answer = self._memory, self._answer
        if len(body.masks) == 4:  # the reads and writes, where a call of ours less can be measured
            a, b, c, d = body.masks

            def callback_of_four(_environment: int, caller: int, slots: Any, _count: int) -> int | None:
                try:
                    if not memory.size:
                        _attach(memory, caller)
                    slots[0] = body.function(slots[0] & a, slots[2] & b, slots[4] & c, slots[6] & d)
                except BaseException as error:
                    return answer(error, slots)
                return None

            return callback_of_four

        def callback(_environment: int, caller: int, slots: Any, _count: int) -> int | None:
            try:
                if not memory.size:
                    _attach(memory, caller)
                slots[0] = body.call(slots)
            except BaseException as error:
                return answer(error, slots)
            return None

        return callback

    def _answer(self, error: BaseException, slots: Any) -> int | None:
        """Answer with the ``errno`` of ``error``, or end the guest with a trap and remember why."""
        if isinstance(error, WasiError):
            slots[0] = error.errno
            return None
        if isinstance(error, OSError):
            slots[0] = errno_of(error)
            return None
        self.failure = self.failure or error
        return _trap_new(b"host", 4)  # type: ignore[no-any-return]


class _Defined(NamedTuple):
    signature: str
    result: bool
    body: _Body
    callback: Any
    """Lives as long as a guest can call it."""

    def functype(self) -> FuncType:
        types = [ValType.i32() if letter == "i" else ValType.i64() for letter in self.signature]
        return FuncType(types, [ValType.i32()] if self.result else [])


class _Body:
    """What a host function does at the moment."""

    __slots__ = ("call", "function", "masks")

    def __init__(self, masks: list[int], function: Function) -> None:
        self.masks = masks
        self.set(function)

    def set(self, function: Function) -> None:
        self.function = function
        self.call = _spread(function, self.masks)


def _spread(function: Function, masks: list[int]) -> Callable[[Any], int | None]:
    """Give a function of the slots; the common numbers of arguments are spelled out because this is the hot path."""
    match masks:
        case []:
            return lambda slots: function()
        case [a]:
            return lambda slots: function(slots[0] & a)
        case [a, b]:
            return lambda slots: function(slots[0] & a, slots[2] & b)
        case [a, b, c]:
            return lambda slots: function(slots[0] & a, slots[2] & b, slots[4] & c)
        case [a, b, c, d, e]:
            return lambda slots: function(
                slots[0] & a, slots[2] & b, slots[4] & c, slots[6] & d, slots[8] & e
            )
    places = [(2 * index, mask) for index, mask in enumerate(masks)]
    return lambda slots: function(*[slots[place] & mask for place, mask in places])


def _attach(memory: GuestMemory, caller: int) -> None:
    """Find the memory that the calling instance exports; without one every pointer of the guest is a fault."""
    found = ffi.wasmtime_extern_t()
    pointer = ctypes.cast(caller, ctypes.POINTER(ffi.wasmtime_caller_t))
    name = ctypes.create_string_buffer(b"memory", 6)
    if not ffi.wasmtime_caller_export_get(pointer, name, 6, ctypes.byref(found)):
        return
    kind: int = found.kind  # type: ignore[assignment] # ctypes gives the number
    if kind == ffi.WASMTIME_EXTERN_SHAREDMEMORY.value:
        shared = found.of.sharedmemory
        memory.attach(
            lambda: (
                _address(ffi.wasmtime_sharedmemory_data(shared)),
                ffi.wasmtime_sharedmemory_data_size(shared),
            )
        )
    elif kind == ffi.WASMTIME_EXTERN_MEMORY.value:
        context, own = ffi.wasmtime_caller_context(pointer), found.of.memory
        memory.attach(
            lambda: (
                _address(ffi.wasmtime_memory_data(context, ctypes.byref(own))),
                ffi.wasmtime_memory_data_size(context, ctypes.byref(own)),
            )
        )


def _address(pointer: Any) -> int:
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0


# (module (import "t" "f" (func $f (param i32 i64 i32 i32) (result i32)))
#         (import "t" "g" (func $g (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
#         (import "t" "h" (func $h (param i32)))
#         (memory (export "memory") 1)
#         (func (export "run") (result i32)
#           (i32.add (call $f (i32.const 0x80000001) (i64.const 0x8000000000000002) (i32.const -3) (i32.const 4))
#             (call $g (i32.const 1) (i32.const 2) (i32.const 3) (i32.const 4) (i32.const 5) (i64.const -6)
#               (i64.const 7) (i32.const -8) (i32.const 9))))
#         (func (export "end") (call $h (i32.const 77))))
SELF_TEST_MODULE: Final = bytes.fromhex(
    "0061736d0100000001210560047f7e7f7f017f60097f7f7f7f7f7e7e7f7f017f60017f006000017f60000002130301740166"
    "000001740167000101740168000203030203040503010001071603066d656d6f727902000372756e000303656e6400040a38"
    "022e00418180808078428280808080808080807f417d4104100041014102410341044105427a42074178410910016a0b0700"
    "41cd0010020b0011046e616d65010a03000166010167020168"
)


class _Ended(Exception):
    pass


def self_test(engine: Engine) -> None:
    """Prove that this engine passes arguments and results as we read them. Raises ``EnarxError`` if it does not."""
    seen: list[tuple[int, ...]] = []

    def record(answer: int) -> Function:
        def function(*arguments: int) -> int:
            seen.append(arguments)
            return answer

        return function

    def end(code: int) -> int:
        raise _Ended(code)

    functions = HostFunctions(GuestMemory())
    functions.define("t", "f", "iIii", record(1000))
    functions.define("t", "g", "iiiiiIIii", record(337))
    functions.define("t", "h", "i", end, result=False)
    store = Store(engine)
    exports = functions.link(engine).instantiate(store, Module(engine, SELF_TEST_MODULE)).exports(store)
    total = exports["run"](store)  # type: ignore[operator]
    try:
        exports["end"](store)  # type: ignore[operator]
    except (Trap, WasmtimeError):
        seen.append(getattr(functions.failure, "args", ()))
    expected = [
        (0x80000001, 0x8000000000000002, _M32 - 2, 4),
        (1, 2, 3, 4, 5, _M64 - 5, 7, _M32 - 7, 9),
        (77,),
    ]
    if total != 1337 or seen != expected:
        hint = "install the locked version of wasmtime"
        raise EnarxError("the engine does not pass arguments as this release expects", hint=hint)
