"""The shell around all commands: exit codes, messages, JSON, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module

import click
import pytest

from enarx import __version__
from enarx.cli import _main
from enarx.cli._exit import ExitCode
from enarx.cli._main import COMMANDS, main
from enarx.tcb.errors import EnarxError, Malformed, Unavailable


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A command ``config`` that raises what a test puts into the environment of the interpreter."""
    monkeypatch.delenv("ENARX_TRACEBACK", raising=False)
    return monkeypatch


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> list[str]:
    """Make a command that raises ``error``; gives the arguments that run it."""

    @click.command()
    @_main.json_option
    def config() -> None:
        raise error

    monkeypatch.setattr(import_module(COMMANDS["config"]), "config", config)
    return ["config"]


@pytest.mark.parametrize(
    ("error", "code", "message", "hint"),
    [
        (EnarxError("no", hint="do"), ExitCode.REFUSED, "no", "do"),
        (Malformed("bad: expected x, found y"), ExitCode.MALFORMED, "bad: expected x, found y", ""),
        (Unavailable("no /dev/kvm"), ExitCode.UNAVAILABLE, "no /dev/kvm", ""),
        (FileNotFoundError(2, "No such file", "a\x1b"), ExitCode.UNAVAILABLE, "a\\x1b: no such file", ""),
        (PermissionError(13, "Denied"), ExitCode.UNAVAILABLE, "denied", ""),
        (click.UsageError("Bad."), ExitCode.USAGE, "bad", "--help shows how it is used"),
        (ValueError("x\x1b"), ExitCode.INTERNAL, "internal error: ValueError: x\\x1b", "ENARX_TRACEBACK=1"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_an_error_becomes_a_message_and_a_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: ExitCode,
    message: str,
    hint: str,
    as_json: bool,
) -> None:
    assert main([*raising(monkeypatch, error), *["--json"] * as_json]) == code
    out, err = capsys.readouterr()
    if as_json:
        document = json.loads(out)
        assert document["schema"] == "enarx.error/1"
        assert (document["error"]["exit_code"], document["error"]["message"]) == (code, message)
        assert hint in document["error"]["hint"]
        assert err == ""
    else:
        assert err.startswith(f"enarx: error: {message}\n")
        assert ("hint: " in err) == bool(hint)
        assert hint in err
        assert out == ""


def test_an_interrupt_is_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(raising(monkeypatch, KeyboardInterrupt())) == ExitCode.INTERRUPTED
    assert capsys.readouterr() == ("", "")


def test_a_traceback_is_shown_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENARX_TRACEBACK", "1")
    assert main(raising(monkeypatch, ValueError("x"))) == ExitCode.INTERNAL
    assert "Traceback" in capsys.readouterr().err


def test_nobody_reads_any_more() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "enarx.cli", "completion", "bash"],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (ExitCode.BROKEN_PIPE, b"")


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version(capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert main([option]) == 0
    assert capsys.readouterr().out == f"enarx {__version__}\n"


def test_without_arguments_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert all(name in err for name in COMMANDS)


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["rnu"], "no such command 'rnu'", "did you mean `run`?"),
        (["config", "chekc"], "no such command 'chekc'", "did you mean `check`?"),
        (["run"], "missing argument 'WASM'", "enarx run --help"),
        (["--nope"], "no such option '--nope'", "enarx --help"),
    ],
)
def test_usage_errors_teach(
    capsys: pytest.CaptureFixture[str], args: list[str], message: str, hint: str
) -> None:
    assert main(args) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert message in err
    assert f"hint: {hint}" in err


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    context = click.Context(group)
    found: list[tuple[str, ...]] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found += [
            (*path, name),
            *(commands(command, (*path, name)) if isinstance(command, click.Group) else []),
        ]
    return found


@pytest.mark.parametrize("path", commands(_main.cli), ids=" ".join)
def test_every_help_has_examples_and_json(capsys: pytest.CaptureFixture[str], path: tuple[str, ...]) -> None:
    assert main([*path, "--help"]) == 0
    out = capsys.readouterr().out
    assert "Examples:\n" in out
    assert f"enarx {' '.join(path)}" in out.partition("Examples:")[2]
    assert "--json" in out


@pytest.mark.parametrize("args", [["--version"], ["run", "--help"]])
def test_starting_loads_little(args: list[str]) -> None:
    """What is slow to load and not needed is not loaded."""
    probe = (
        f"import sys; from enarx.cli._main import main; main({args}); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "enarx.cli._main" in loaded
    unwanted = {"rich", "wasmtime", "OpenSSL", "cryptography", "asyncio", "importlib.metadata", "difflib"}
    assert not loaded & unwanted
    assert not any(name.startswith(("enarx.tenant", "enarx.attest", "enarx.tcb.keep")) for name in loaded)
