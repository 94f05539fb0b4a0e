"""Choose what the machine needs of all that could be had, and make its first file system of it.

There is no shell, no package manager, no driver for a network or a disk: an interpreter, the modules that the keep
loads, the libraries that these are linked with, a few device nodes, and ``/init``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from enarx.tcb.errors import Malformed
from enarx.tenant.image._inventory import module_name
from enarx.tenant.image.vm._cpio import Entry, character_device, directory, file
from enarx.tenant.image.vm._elf import is_elf, needed, strip
from enarx.tenant.image.vm._guest import LIBRARIES, LOADER, PYTHON, STANDARD_LIBRARY, Guest, Traced
from enarx.tenant.image.vm._kernel import unpack_module
from enarx.tenant.image.vm._lock import Wheel
from enarx.tenant.image.vm._sources import MODULES, Origin, Source, write_out

INIT: Final = f"""#!/usr/bin/python3.11 -ISB
import gc
import sys

gc.disable()
sys.path.append("/{MODULES}")
from enarx.tcb.keep.vm.__main__ import main

gc.freeze()
gc.enable()
main()
"""
"""What the kernel starts: isolated from the environment, without site packages, writing no byte code.

Modules are loaded without a search for garbage, which would go over all of them again and again and find none; and
none goes over them later, in the keep, which would copy every page that the first process and the keep share.
"""
NODES: Final = {
    "dev/console": character_device(5, 1),
    "dev/null": character_device(1, 3, mode=0o666),
    "dev/zero": character_device(1, 5, mode=0o666),
    "dev/random": character_device(1, 8, mode=0o444),
    "dev/urandom": character_device(1, 9, mode=0o444),
}
"""The kernel opens the console, and the interpreter reads its hash seed where the processor gives no random numbers,
before anything is mounted."""
MOUNT_POINTS: Final = ("proc", "sys", "tmp")
KERNEL_MODULES: Final = "lib/modules"
ALWAYS: Final = ("encodings.ascii", "encodings.latin_1", "encodings.utf_8", "traceback")
"""What is loaded only when something goes wrong, or under other locales than the builder's."""
LANDMARK: Final = f"{STANDARD_LIBRARY}/os.py"
"""By it the interpreter knows where its library is."""
LOADED_LATER: Final = ("libgcc_s.so.1",)
"""Libraries that no file names: the C library loads it when a thread ends."""


class Made(Enum):
    """How a file of the image came from that of its package."""

    COPIED = "copied"
    STRIPPED = "stripped"
    COMPILED = "compiled"
    UNPACKED = "unpacked"
    WRITTEN = "written"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One file of the first file system."""

    entry: Entry
    origin: Origin
    made: Made


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """All files by path, and what the interpreter told of itself."""

    files: Mapping[str, Placed]
    traced: Traced

    def entries(self) -> dict[str, Entry]:
        """Everything that the archive holds, directories and devices too."""
        places = {path: directory() for path in MOUNT_POINTS}
        return {**places, **NODES, **{path: placed.entry for path, placed in self.files.items()}}


def build_tree(
    sources: Mapping[str, Source], kernel_modules: Mapping[str, Source], root: Path, init: str
) -> Tree:
    """Make the tree; ``root`` is an empty directory to work in. Raises ``Malformed``, ``Unavailable``."""
    write_out(sources, root)
    guest = Guest(root)
    modules = sorted(path for path in sources if path.startswith(f"{MODULES}/"))
    own = [it for it in modules if sources[it].origin is None and it.endswith(".py")]
    traced = guest.trace([*ALWAYS, *(module_name(it.removeprefix(f"{MODULES}/")) for it in own)], MODULES)
    wanted = dict.fromkeys([*traced.files, *modules, LANDMARK])
    texts = {path: f"/{path}" for path in wanted if path.endswith(".py")}
    compiled = guest.compile(texts)
    files = {
        f"{path}c": Placed(entry=file(code), origin=sources[path].origin, made=Made.COMPILED)
        for path, code in compiled.items()
    }
    native = {path: sources[path] for path in wanted if path not in texts}
    native |= {path: _source(sources, path) for path in (PYTHON, LOADER)}
    native |= dict(_libraries(sources, native.values()))
    files |= {path: _placed(source) for path, source in native.items()}
    for name, source in kernel_modules.items():
        entry = file(unpack_module(source.content))
        files[f"{KERNEL_MODULES}/{name}.ko"] = Placed(entry=entry, origin=source.origin, made=Made.UNPACKED)
    files["init"] = Placed(entry=file(init.encode(), executable=True), origin=None, made=Made.WRITTEN)
    return Tree(files=files, traced=traced)


def _placed(source: Source) -> Placed:
    """Copy a file; what a wheel brings still has its symbols."""
    if isinstance(source.origin, Wheel) and is_elf(source.content):
        content, made = strip(source.content), Made.STRIPPED
    else:
        content, made = source.content, Made.COPIED
    return Placed(entry=file(content, executable=source.executable), origin=source.origin, made=made)


def _libraries(sources: Mapping[str, Source], users: Iterable[Source]) -> Iterator[tuple[str, Source]]:
    """Give every library that ``users`` are linked with, directly or not."""
    seen = {LOADER.rpartition("/")[2]}
    waiting = [*LOADED_LATER, *(name for user in users for name in _needed(user))]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = next((f"{it}/{name}" for it in LIBRARIES if f"{it}/{name}" in sources), None)
        if path is None:
            raise Malformed(
                f"image: no package brings the library {name}, with which something in it is linked"
            )
        waiting += _needed(sources[path])
        yield path, sources[path]


def _needed(source: Source) -> tuple[str, ...]:
    return needed(source.content) if is_elf(source.content) else ()


def _source(sources: Mapping[str, Source], path: str) -> Source:
    if path not in sources:
        raise Malformed(f"image: no package brings {path}")
    return sources[path]
