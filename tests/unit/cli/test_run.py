"""``enarx run``: from arguments to a request, and from a result to an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import enarx.host.run
from enarx.cli._exit import ExitCode
from enarx.cli._main import main
from enarx.cli._workload import CODES
from enarx.host.keep_start import Interpreter
from enarx.host.request import Directory, DirectoryMode, RunRequest
from enarx.host.run import Observer, RunResult
from enarx.tcb.workload import Ending, Limits, Outcome


class Host:
    """Stands where keeps are started: takes requests and gives the result it was told to give."""

    def __init__(self) -> None:
        self.requests: list[RunRequest] = []
        self.result = RunResult(outcome=Outcome(ending=Ending.EXITED), wall_ms=7)

    def run(self, request: RunRequest, observer: Observer, *, early: Interpreter | None = None) -> RunResult:
        self.requests.append(request)
        observer.progress("compiling\x1b")
        observer.listening("web", 8443)
        return self.result


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENARX_CONFIG", raising=False)
    monkeypatch.delenv("ENARX_WASMCFGFILE", raising=False)
    monkeypatch.delenv("ENARX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    for name in ("a.wasm", "Enarx.toml", "in/", "out/"):
        Path(name).mkdir() if name.endswith("/") else Path(name).touch()
    host = Host()
    monkeypatch.setattr(enarx.host.run, "run", host.run)
    return host


def request(host: Host, *args: str) -> RunRequest:
    assert main(["run", *args]) == 0
    return host.requests[-1]


def test_the_least(host: Host) -> None:
    assert request(host, "a.wasm") == RunRequest(wasm_path="a.wasm", cache_dir="/cache/enarx")


def test_the_most(host: Host) -> None:
    given = request(
        host, "a.wasm", "--config", "Enarx.toml", "--env", "A=1", "-e", "B=x=y", "--dir", "in::/data:ro",
        "-d", "out:sync", "--limit", "memory=64MiB", "-l", "time=90", "--threads", "--require-sandbox",
        "--cache", "here", "--", "--json", "-v", "--",
    )  # fmt: skip
    assert given == RunRequest(
        wasm_path="a.wasm",
        config_path="Enarx.toml",
        args=("--json", "-v", "--"),
        env=(("A", "1"), ("B", "x=y")),
        directories=(
            Directory(host_path="in", guest_path="/data", mode=DirectoryMode.READ_ONLY),
            Directory(host_path="out", guest_path="out", mode=DirectoryMode.SYNC),
        ),
        limits=Limits(memory_bytes=64 << 20, time_ms=90_000),
        threads=True,
        require_sandbox=True,
        cache_dir="here",
    )


def test_no_cache(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENARX_CACHE", "there")
    assert request(host, "a.wasm").cache_dir == "there"
    assert request(host, "a.wasm", "--no-cache").cache_dir is None


@pytest.mark.parametrize(
    ("value", "place"), [("/c", "/c/enarx"), ("relative", "/h/.cache/enarx"), ("", "/h/.cache/enarx")]
)
def test_where_the_cache_is(host: Host, monkeypatch: pytest.MonkeyPatch, value: str, place: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", "/h")
    assert request(host, "a.wasm").cache_dir == place


@pytest.mark.parametrize("variable", ["ENARX_CONFIG", "ENARX_WASMCFGFILE"])
def test_the_configuration_may_come_from_the_environment(
    host: Host, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "Enarx.toml")
    assert request(host, "a.wasm").config_path == "Enarx.toml"


def test_the_name_of_the_original_option(host: Host) -> None:
    assert request(host, "--wasmcfgfile", "Enarx.toml", "a.wasm").config_path == "Enarx.toml"


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["b.wasm"], "'b.wasm' does not exist", ""),
        (["in"], "'in' is a directory", ""),
        (["a.wasm", "--config", "b.toml"], "'b.toml' does not exist", ""),
        (["a.wasm", "--env", "A"], "expected NAME=VALUE", ""),
        (["a.wasm", "--env", "A=\udcff"], "expected UTF-8", ""),
        (["a.wasm", "--", "\udcff"], "expected UTF-8", ""),
        (["a.wasm", "--dir", "::x"], "expected a path", "HOST[::GUEST]"),
        (["a.wasm", "--dir", "missing"], "'missing' is not a directory", ""),
        (["a.wasm", "--dir", "a.wasm"], "'a.wasm' is not a directory", ""),
        (["a.wasm", "--dir", "in::/x", "--dir", "out::/x"], "'/x' is given twice", ""),
        (["a.wasm", "--limit", "memry=1"], "'--limit'", "did you mean `memory`?"),
        (["a.wasm", "--limit", "memory=0"], "found 0", ""),
        (["a.wasm", "--cache", "x", "--no-cache"], "contradict", ""),
        (["a.wasm", "--cache", "a.wasm"], "'a.wasm' is a file", ""),
        (["a.wasm", "--thread"], "no such option '--thread'", ""),
    ],
)
def test_usage_errors(
    host: Host, capsys: pytest.CaptureFixture[str], args: list[str], message: str, hint: str
) -> None:
    assert main(["run", *args]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert message in err
    assert hint in err
    assert out == ""
    assert host.requests == []


@pytest.mark.parametrize("code", [0, 1, 31, 112, 255])
def test_the_exit_code_is_the_programs_own(host: Host, capsys: pytest.CaptureFixture[str], code: int) -> None:
    host.result = RunResult(outcome=Outcome(ending=Ending.EXITED, code=code), wall_ms=7)
    assert main(["run", "a.wasm"]) == code
    assert capsys.readouterr() == ("", "")


def test_every_other_ending_has_its_code() -> None:
    assert CODES.keys() == set(Ending) - {Ending.EXITED}


@pytest.mark.parametrize("ending", CODES)
def test_other_endings_are_told(host: Host, capsys: pytest.CaptureFixture[str], ending: Ending) -> None:
    host.result = RunResult(outcome=Outcome(ending=ending, detail="because\x1b", hint="do"), wall_ms=7)
    assert main(["run", "a.wasm"]) == CODES[ending]
    assert capsys.readouterr() == ("", "enarx: error: because\\x1b\nhint: do\n")


def test_the_document_leaves_standard_output_to_the_program(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.result = RunResult(
        outcome=Outcome(ending=Ending.TIME_LIMIT, detail="late", hint="wait", memory_bytes=5),
        wall_ms=7,
        changed=("out/a",),
        conflicts=("out/b",),
        ports=(8443,),
    )
    assert main(["run", "a.wasm", "--json"]) == ExitCode.TIME_LIMIT
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err) == {
        "schema": "enarx.run/1",
        "ending": "time-limit",
        "exit_code": 124,
        "detail": "late",
        "hint": "wait",
        "memory_bytes": 5,
        "wall_ms": 7,
        "changed": ["out/a"],
        "conflicts": ["out/b"],
        "ports": [8443],
    }


def test_errors_before_the_run_leave_it_too(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "b.wasm", "--json"]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert (out, json.loads(err)["schema"]) == ("", "enarx.error/1")


def test_conflicts_are_told(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome(ending=Ending.EXITED, code=3)
    host.result = RunResult(outcome=outcome, wall_ms=7, conflicts=("out/b",))
    assert main(["run", "a.wasm"]) == 3
    assert capsys.readouterr().err.startswith("enarx: warning: out/b was changed here too")


def test_verbose_tells_what_happens(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "a.wasm", "--verbose"]) == 0
    assert capsys.readouterr().err == "enarx: compiling\\x1b\nenarx: web listens on port 8443\n"
