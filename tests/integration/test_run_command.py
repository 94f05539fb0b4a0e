"""``enarx run`` on small modules: the original's four cases, exit codes, limits, wrong modules, wrong configurations.

Source of the four cases: enarx/enarx 0.7.1, tests/crates/enarx_wasm_tests/wat, described in our own words.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import wasmtime

from enarx.cli._exit import ExitCode

IMPORT = '(import "wasi_snapshot_preview1" "{name}" (func ${name} (param {params}) (result i32)))'
EXIT = '(import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))'
WRITE = IMPORT.format(name="fd_write", params="i32 i32 i32 i32")
HELLO = f"""(module {WRITE} (memory (export "memory") 1)
  (data (i32.const 0) "\\08\\00\\00\\00\\0e\\00\\00\\00Hello, world!\\n")
  (func (export "_start") (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32)))))"""
ENDLESS_OUTPUT = HELLO.replace("(drop", "(loop $again (drop").replace("32)))))", "32))) (br $again))))")
ARGC = f"""(module {IMPORT.format(name="args_sizes_get", params="i32 i32")} {EXIT} (memory (export "memory") 1)
  (func (export "_start") (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
    (call $proc_exit (i32.load (i32.const 0)))))"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a module from its text (or bytes) with more arguments."""

    def run(module: str | bytes, *args: str) -> subprocess.CompletedProcess[str]:
        binary = module if isinstance(module, bytes) else bytes(wasmtime.wat2wasm(module))
        (tmp_path / "main.wasm").write_bytes(binary)
        command = [sys.executable, "-m", "enarx.cli", "run", "main.wasm", "--no-cache", *args]
        return subprocess.run(
            command,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_a_result_of_the_default_function_is_ignored(run: Run) -> None:
    assert run('(module (func (export "") (result i32) i32.const 1))').returncode == 0


def test_the_program_counts_its_arguments(run: Run) -> None:
    assert run(ARGC).returncode == 1
    assert run(ARGC, "--", "a", "--json").returncode == 3


def test_hello(run: Run) -> None:
    done = run(HELLO)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello, world!\n", "")


def test_nothing_to_start(run: Run) -> None:
    done = run('(module (memory (export "memory") 1))')
    assert done.returncode == ExitCode.UNRUNNABLE
    assert "_start" in done.stderr


@pytest.mark.parametrize("code", [0, 1, 31, 127, 255])
def test_the_exit_code_comes_through(run: Run, code: int) -> None:
    start = f'(func (export "_start") (call $proc_exit (i32.const {code})))'
    done = run(f'(module {EXIT} (memory (export "memory") 1) {start})')
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.parametrize(
    ("module", "args", "code"),
    [
        ('(module (func (export "_start") unreachable))', [], ExitCode.TRAPPED),
        (
            '(module (func (export "_start") (loop $a (br $a))))',
            ["--limit", "time=300ms"],
            ExitCode.TIME_LIMIT,
        ),
        ('(module (func $f (export "_start") (call $f)))', [], ExitCode.STACK_OVERFLOW),
        (ENDLESS_OUTPUT, ["--limit", "output=4KiB"], ExitCode.OUTPUT_LIMIT),
        ('(module (memory 32) (func (export "_start")))', ["--limit", "memory=1MiB"], ExitCode.MEMORY_LIMIT),
        (
            '(module (table 32 funcref) (func (export "_start")))',
            ["--limit", "table=16"],
            ExitCode.TABLE_LIMIT,
        ),
        ('(module (import "env" "x" (func)) (func (export "_start")))', [], ExitCode.UNRUNNABLE),
        (b"not wasm", [], ExitCode.MALFORMED),
        (b"", [], ExitCode.MALFORMED),
        (HELLO, ["--limit", "module=64"], ExitCode.MALFORMED),
    ],
)
def test_other_ends_have_their_codes_and_messages(
    run: Run, module: str | bytes, args: list[str], code: ExitCode
) -> None:
    done = run(module, *args)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("enarx: error: ")
    told = json.loads(run(module, *args, "--json").stderr.splitlines()[-1])
    assert told.get("exit_code", told.get("error", {}).get("exit_code")) == code


def test_output_stops_at_its_limit(run: Run) -> None:
    assert len(run(ENDLESS_OUTPUT, "--limit", "output=4KiB").stdout) <= 4096


def test_the_configuration_of_the_original_runs(run: Run, tmp_path: Path) -> None:
    (tmp_path / "Enarx.toml").write_text(
        'args = ["a", "b"]\n[[files]]\nkind = "stdin"\n[[files]]\nkind = "stdout"\n[[files]]\nkind = "stderr"\n'
    )
    assert run(ARGC, "--config", "Enarx.toml").returncode == 3
    assert run(ARGC, "--config", "Enarx.toml", "--", "c").returncode == 2
    assert run(HELLO, "--config", "Enarx.toml").stdout == "Hello, world!\n"


def test_a_configuration_without_files_gives_no_output(run: Run, tmp_path: Path) -> None:
    (tmp_path / "Enarx.toml").write_text("args = []")
    done = run(HELLO, "--config", "Enarx.toml")
    assert (done.returncode, done.stdout) == (0, "")


def test_a_wrong_configuration_names_its_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "Enarx.toml").write_text("arg = []")
    done = run(HELLO, "--config", "Enarx.toml")
    assert done.returncode == ExitCode.MALFORMED
    assert done.stderr == "enarx: error: arg: unknown key (line 1)\nhint: did you mean `args`?\n"
