"""Run the image's own interpreter on this machine, from its unpacked packages, before there is a machine of its own.

It says which modules the keep loads, compiles them, and calls the locked zstd: whatever this machine has of all that
cannot change a byte of the image. Its environment is empty and its hashes are not random.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enarx.tcb.errors import Malformed, Unavailable

LOADER: Final = "lib64/ld-linux-x86-64.so.2"
LIBRARIES: Final = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
PYTHON: Final = "usr/bin/python3.11"
STANDARD_LIBRARY: Final = "usr/lib/python3.11"
TIMEOUT_S: Final = 300
FORM: Final = {"100": 9, "105": 6, "1002": 2}
"""zstd's level, its shortest match, and no Huffman codes: a kernel unpacks it while somebody waits.

Of 52 MB this leaves 19.1; level 9 alone leaves 17.5, and takes two fifths more instructions to unpack. Level 19
leaves 15.5, and takes three quarters more.
"""
_TRACE: Final = """
import sys
sys.path.append(sys.argv[1])
import importlib, json
for name in json.load(sys.stdin):
    importlib.import_module(name)
from enarx.tcb.keep import network, runner
network.load()
runner.prepare()
from cryptography.hazmat.bindings._rust import openssl
files = {module.__spec__.origin for module in list(sys.modules.values()) if getattr(module, "__spec__", None)
                and module.__spec__.has_location}
with open("/proc/self/maps") as maps:
    mapped = {line.split(None, 5)[5].strip() for line in maps if ".so" in line}
files = sorted({*files, *mapped})
print(json.dumps({"files": files, "python": sys.version.split()[0], "openssl": openssl.openssl_version_text()}))
"""
_COMPILE: Final = """
import json, sys
from importlib.util import source_hash
from importlib._bootstrap_external import _code_to_hash_pyc
for source, shown, target in json.load(sys.stdin):
    with open(source, "rb") as file:
        content = file.read()
    code = compile(content, shown, "exec", dont_inherit=True, optimize=0)
    with open(target, "wb") as file:
        file.write(_code_to_hash_pyc(code, source_hash(content), checked=False))
"""
_ZSTD: Final = """
import ctypes, json, sys
zstd = ctypes.CDLL("libzstd.so.1")
for name in ("ZSTD_compressBound", "ZSTD_compress2", "ZSTD_decompress", "ZSTD_CCtx_setParameter"):
    getattr(zstd, name).restype = ctypes.c_size_t
zstd.ZSTD_createCCtx.restype = ctypes.c_void_p
def checked(result):
    return sys.exit("zstd refuses the data") if zstd.ZSTD_isError(ctypes.c_size_t(result)) else result
what, given, source, target = sys.argv[1], json.loads(sys.argv[2]), *sys.argv[3:]
with open(source, "rb") as file:
    data = file.read()
size = ctypes.c_size_t(len(data))
room = ctypes.c_size_t(zstd.ZSTD_compressBound(size) if what == "compress" else given)
made = ctypes.create_string_buffer(room.value)
if what == "compress":
    context = ctypes.c_void_p(zstd.ZSTD_createCCtx())
    for name, value in given.items():
        checked(zstd.ZSTD_CCtx_setParameter(context, int(name), value))
    length = checked(zstd.ZSTD_compress2(context, made, room, data, size))
else:
    length = checked(zstd.ZSTD_decompress(made, room, data, size))
with open(target, "wb") as file:
    file.write(memoryview(made)[:length])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """What a process has loaded that imported all modules of the keep and rehearsed what a keep does."""

    files: tuple[str, ...]
    """Paths of Python modules and libraries, below the unpacked root."""
    python: str
    openssl: str


class Guest:
    """The unpacked packages in ``root``, which is nobody else's."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def trace(self, modules: Iterable[str], path: str) -> Traced:
        """Import ``modules`` with ``path``, relative to the root, behind the standard library."""
        loaded = self._run(_TRACE, [str(self.root / path)], json.dumps(list(modules)).encode())
        told = json.loads(loaded)
        home = f"{self.root}/"
        if strangers := [file for file in told["files"] if not file.startswith(home)]:
            raise Malformed(f"image: its interpreter loaded {strangers[0]}, which is not in its packages")
        files = tuple(file.removeprefix(home) for file in told["files"])
        return Traced(files=files, python=told["python"], openssl=told["openssl"])

    def compile(self, sources: Mapping[str, str]) -> dict[str, bytes]:
        """Give the byte code of each source, by its path below the root; the value is the path that it shows.

        The interpreter that loads it looks neither for the source nor at its time (PEP 552, unchecked).
        """
        target = self.root / ".compiled"
        target.mkdir()
        made = {source: target / f"{number}.pyc" for number, source in enumerate(sorted(sources))}
        jobs = [(str(self.root / it), sources[it], str(made[it])) for it in sorted(sources)]
        self._run(_COMPILE, [], json.dumps(jobs).encode())
        return {source: path.read_bytes() for source, path in made.items()}

    def compress(self, data: bytes) -> bytes:
        """Give one zstd frame."""
        return self._zstd("compress", FORM, data)

    def decompress(self, data: bytes, size: int) -> bytes:
        """Give the content of a zstd frame, which has at most ``size`` bytes."""
        return self._zstd("decompress", size, data)

    def _zstd(self, what: str, given: int | Mapping[str, int], data: bytes) -> bytes:
        source, target = self.root / ".zstd-in", self.root / ".zstd-out"
        source.write_bytes(data)
        self._run(_ZSTD, [what, json.dumps(given), str(source), str(target)], b"")
        return target.read_bytes()

    def _run(self, script: str, arguments: list[str], sent: bytes) -> bytes:
        libraries = ":".join(str(self.root / path) for path in LIBRARIES)
        command = [str(self.root / LOADER), "--library-path", libraries, str(self.root / PYTHON)]
        command += ["-S", "-s", "-P", "-B", "-c", script, *arguments]
        what = "the image's interpreter does not run here"
        hint = "build on Linux on x86-64, to a directory on a file system from which programs may be started"
        try:
            done = subprocess.run(
                command,
                input=sent,
                capture_output=True,
                env={"PYTHONHASHSEED": "0"},
                timeout=TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"{what}: {error}", hint=hint) from None
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            if os.strerror(errno.ENOSPC) in reason:
                raise Unavailable(
                    f"{self.root.parent.parent}: no space left on device", hint="a build needs 250 MB there"
                )
            raise Unavailable(f"{what}: {reason or f'status {done.returncode}'}", hint=hint)
        return done.stdout
