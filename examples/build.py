"""Compiles the sources of the example workloads to WebAssembly: ``python -m examples.build [NAME...]``.

A source is compiled anew only when its text, its flags or the version of its compiler changed, and the same source
always gives the same bytes (componentize-py, which snapshots a running interpreter, is the one exception).
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import wasmtime

EXAMPLES: Final = Path(__file__).resolve().parent
OUTPUT: Final = EXAMPLES / "build"
C_FLAGS: Final = ("-target", "wasm32-wasi", "-O2", "-s", "-std=gnu11", "-Wall", "-Wextra", "-Werror")
COMPILERS: Final = {".c": "ziglang", ".wat": "wasmtime", ".py": "componentize-py"}
MAIN_SOURCES: Final = ("main.c", "main.wat", "app.py")
SLOW_S: Final = 1.0


class BuildError(Exception):
    """A workload cannot be built; the message is the compiler's own or says what is missing."""


def build(name: str) -> Path:
    """Build the example in the folder ``name``; returns ``examples/build/NAME.wasm``."""
    return compile_source(source_of(name), OUTPUT / f"{name}.wasm")


def names() -> list[str]:
    """The names of all examples."""
    return sorted(folder.name for folder in EXAMPLES.iterdir() if any(_main_sources(folder)))


def source_of(name: str) -> Path:
    """The one file in the folder of an example from which its workload is compiled."""
    sources = list(_main_sources(EXAMPLES / name))
    if len(sources) != 1:
        raise BuildError(f"example {name!r}: expected one of {', '.join(MAIN_SOURCES)}, found {len(sources)}")
    return sources[0]


def compile_source(source: Path, output: Path, flags: Sequence[str] = ()) -> Path:
    """Compile one ``.c``, ``.wat`` or ``.py`` file to ``output`` unless that is up to date; returns ``output``.

    ``flags`` are added to those of the C compiler. Files beside a C source that it includes, and the ``wit`` folder
    beside a Python source, count as part of the source.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    stamp = output.with_suffix(".stamp")
    with _locked(output.with_suffix(".lock")):
        wanted = _digest(source, flags)
        if output.exists() and stamp.exists() and stamp.read_text() == f"{wanted} {_sha256(output)}":
            return output
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="enarx-build-") as folder:
            made = Path(folder, "out.wasm")
            _compile(source, made, flags)
            fresh = output.with_suffix(".new")
            shutil.copyfile(made, fresh)
            os.replace(fresh, output)
        stamp.write_text(f"{wanted} {_sha256(output)}")
        if (took := time.monotonic() - started) > SLOW_S:
            print(f"built {output.name} in {took:.1f} s", file=sys.stderr)
    return output


def _main_sources(folder: Path) -> Iterator[Path]:
    return (folder / name for name in MAIN_SOURCES if (folder / name).is_file())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(source: Path, flags: Sequence[str]) -> str:
    """Name everything that the output depends on: the sources, the flags, the compiler."""
    try:
        compiler = COMPILERS[source.suffix]
        parts = [Path(__file__).read_text(), compiler, version(compiler), *flags]
    except KeyError:
        raise BuildError(f"{source}: expected a file that ends in {', '.join(COMPILERS)}") from None
    except PackageNotFoundError as error:
        raise BuildError(f"{error.name} is not installed: run 'make examples'") from None
    beside = {".c": "*.h", ".py": "wit/**/*.wit"}.get(source.suffix)
    try:
        for path in [source, *(sorted(source.parent.glob(beside)) if beside else ())]:
            parts += [path.name, path.read_text()]
    except OSError as error:
        raise BuildError(f"{source}: {error.strerror}") from None
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _compile(source: Path, output: Path, flags: Sequence[str]) -> None:
    if source.suffix == ".wat":
        try:
            output.write_bytes(wasmtime.wat2wasm(source.read_text()))
        except wasmtime.WasmtimeError as error:
            raise BuildError(f"{source}: {error}") from None
    elif source.suffix == ".c":
        _progress(source, "the first C build also compiles the C library, which takes half a minute")
        _run(
            [sys.executable, "-m", "ziglang", "cc", *C_FLAGS, *flags, source.name, "-o", str(output)],
            source.parent,
        )
    else:
        _progress(source, "about ten seconds")
        componentize = shutil.which("componentize-py", path=os.fspath(Path(sys.executable).parent))
        if componentize is None:
            raise BuildError("componentize-py is not installed beside this Python: run 'make examples'")
        # A folder of its own, so that neither byte code nor the checkout's path reaches the snapshot.
        staged = Path(shutil.copytree(source.parent, output.parent / "app"))
        command = ["--quiet", "--wit-path", "wit", "--world", "command", "componentize", "--python-path", "."]
        _run([componentize, *command, source.stem, "--output", str(output)], staged)


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(
            f"{folder}: {Path(command[0]).name} ended with {done.returncode}\n{done.stderr or done.stdout}"
        )


def _progress(source: Path, remark: str) -> None:
    if sys.stderr.isatty():
        print(f"compiling {source.parent.name}/{source.name} ({remark})", file=sys.stderr)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time build a file; test runners work in parallel."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.build", description="Build the example workloads."
    )
    parser.add_argument("name", nargs="*", help="an example's folder; all of them when none is named")
    try:
        for name in parser.parse_args(arguments).name or names():
            print(os.path.relpath(build(name)), flush=True)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
