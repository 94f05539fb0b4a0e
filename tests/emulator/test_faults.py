"""The registry of faults: complete, and the same that the command line lists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from enarx_emulator import hardware
from enarx_emulator.__main__ import main
from enarx_emulator.errors import EmulatorError
from enarx_emulator.faults import check_faults, registry
from enarx_emulator.kinds import KINDS


def test_there_are_enough_faults_and_each_says_what_it_does() -> None:
    assert len(registry()) >= 40
    for name, fault in registry().items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", name)
        assert fault.name == name
        assert fault.kinds
        assert set(fault.kinds) <= set(KINDS)
        assert fault.effect
        assert not fault.effect.endswith(".")
        assert fault.caught_by


def test_every_kind_of_machine_has_faults() -> None:
    for kind in KINDS:
        assert sum(kind in fault.kinds for fault in registry().values()) >= 4


def test_a_machine_has_only_faults_of_its_kind() -> None:
    check_faults(frozenset({"pef-rtas-replaced"}), "pef")
    with pytest.raises(EmulatorError, match="does not exist"):
        check_faults(frozenset({"pef-none"}), "pef")
    with pytest.raises(EmulatorError, match="the machine is snp"):
        check_faults(frozenset({"pef-rtas-replaced"}), "snp")


def test_the_command_line_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["faults", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "enarx-emulator.faults/1"
    assert {entry["name"] for entry in document["faults"]} == set(registry())
    assert main(["faults", "--kind", "pef"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == sum("pef" in fault.kinds for fault in registry().values())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["start", "pef"], 2, "--state"),
        (["start", "xen", "--state", "x"], 2, "xen"),
        (["start", "pef", "--state", "{tmp}/a", "--seed", "xyz"], 2, "not hex"),
        (["start", "pef", "--state", "{tmp}/a", "--seed", "00"], 1, "at least 16"),
        (["start", "pef", "--state", "{tmp}/a", "--fault", "none"], 1, "does not exist"),
        (["start", "pef", "--state", "{tmp}/a", "--product", "milan"], 3, "product"),
        (["start", "pef", "--state", "/dev/null/x"], 4, "/dev/null/x"),
        (["info", "--state", "{tmp}/none"], 4, "no platform"),
        (["vendor", "event", "--url", "https://example.com", "outage"], 2, "127.0.0.1"),
        (["vendor", "event", "--url", "http://127.0.0.1:1", "outage"], 4, "no vendors"),
        (["vendor", "serve", "--vendor", "{tmp}/v", "--fault", "none"], 2, "no fault"),
    ],
)
def test_mistakes_get_a_message_and_an_exit_code(
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    tmp = tmp_path_factory.mktemp("cli")
    given = [argument.replace("{tmp}", str(tmp)) for argument in arguments]
    more = ["--beside-real-hardware"] if given[0] == "start" else []
    assert main([*given, *more]) == code
    error = capsys.readouterr().err
    assert error.startswith("enarx-emulator: error: ")
    assert message in error
    assert "Traceback" not in error


def test_without_arguments_it_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "EMULATED" in capsys.readouterr().err
    assert main(["--version"]) == 0


@pytest.mark.parametrize("command", ["start", "evidence"])
def test_nothing_is_emulated_beside_real_hardware(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(hardware, "DEVICES", ("dev/null",))
    arguments = [command, "snp", "--state", str(tmp_path / "state")]
    if command == "evidence":
        arguments += ["--image", "/dev/null", "--report-data", "00" * 64, "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "this machine has a real TEE: /dev/null" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
