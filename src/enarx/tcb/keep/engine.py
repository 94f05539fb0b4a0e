"""The WebAssembly engine: its configuration, and how bytes become a module that may run.

Machine code comes from two places only: compiled here from the module, or opened from a sealed copy that a keep with
the same key compiled before (``code_cache``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, Self, TypeVar

from wasmtime import Config, Engine, WasmtimeError
from wasmtime import _ffi as ffi

from enarx.tcb.errors import Malformed
from enarx.tcb.keep.code_cache import CodeCache

MODULE_MAGIC: Final = b"\0asm\x01\0\0\0"
COMPONENT_MAGIC: Final = b"\0asm\x0d\0\x01\0"


class Loadable(Protocol):
    """A module or a component of the engine."""

    def __init__(self, engine: Engine, wasm: bytes) -> None:
        """Compile."""

    @classmethod
    def deserialize(cls, engine: Engine, encoded: bytes) -> Self:
        """Load machine code that ``serialize`` gave."""

    def serialize(self) -> bytearray:
        """Give the machine code."""


Code = TypeVar("Code", bound=Loadable)

DEFAULT_STACK_BYTES: Final = 512 * 1024
CONFIGURATION: Final = "wasmtime 50.0.1, 1"
"""Changes with the engine and with ``new_engine``, so that code compiled before is not taken for code of now."""
_ASYNC_STACK_MARGIN: Final = 1 << 20


def new_engine(
    *, stack_bytes: int = DEFAULT_STACK_BYTES, threads: bool = False, parallel: bool = True
) -> Engine:
    """Make an engine. ``parallel`` compiles on all processors, which a process must not do that forks afterwards."""
    config = Config()
    config.parallel_compilation = parallel
    config.memory_may_move = False  # GuestMemory keeps the address
    config.memory_init_cow = False  # no memfd behind the guest's memory
    config.wasm_threads = threads
    config.shared_memory = threads
    config.wasm_memory64 = False  # WASI preview 1 has 32-bit pointers
    config.wasm_gc = False
    config.gc_support = False
    config.wasm_exceptions = False
    config.wasm_function_references = False
    config.wasm_component_model = True
    if stack_bytes != DEFAULT_STACK_BYTES:
        # the engine aborts the process when its asynchronous stacks, which we never use, are smaller than this one
        ffi.wasmtime_config_async_stack_size_set(config.ptr(), stack_bytes + _ASYNC_STACK_MARGIN)
        config.max_wasm_stack = stack_bytes
    return Engine(config)


def check_kind(binary: bytes) -> bool:
    """Say whether ``binary`` is a component (else a module). Raises ``Malformed`` when it is neither.

    The engine itself would also take WebAssembly's text form, which is no input of ours.
    """
    magic = binary[:8]
    if magic == MODULE_MAGIC:
        return False
    if magic == COMPONENT_MAGIC:
        return True
    if magic[:4] == MODULE_MAGIC[:4]:
        raise Malformed(
            f"the file is WebAssembly of an unknown version {magic[4:].hex()}",
            hint="modules are version 1, components version 0xd of layer 1",
        )
    raise Malformed(
        f"the file is not WebAssembly: it starts with {bytes(magic[:4]).hex() or 'nothing'}, not 0061736d",
        hint="compile your program for wasm32-wasi; text (.wat) must be assembled first",
    )


def load_code(
    engine: Engine, binary: bytes, kind: type[Code], cache: CodeCache, compiling: Callable[[], None]
) -> Code:
    """Give module or component, from the cache if it has it. Raises ``Malformed`` when the engine finds it invalid.

    ``compiling`` is called before a compilation starts, so that somebody who waits can be told.
    """
    sealed = cache.open()
    if sealed is not None:
        try:
            return kind.deserialize(engine, sealed)
        except WasmtimeError:
            sealed = None  # made on another kind of processor: the engine says so before it uses a byte of it
    compiling()
    try:
        code = kind(engine, binary)
    except WasmtimeError as error:
        message = first_line(error)
        hint = "allow threads with --threads" if "threads must be enabled" in message else ""
        raise Malformed(f"the {kind.__name__.lower()} is not valid: {message}", hint=hint) from None
    cache.seal(code.serialize)
    return code


def first_line(error: WasmtimeError) -> str:
    """Give the engine's causes as one line."""
    lines = (line.strip() for line in str(error).splitlines())
    return ": ".join(line for line in lines if line and line != "Caused by:")
