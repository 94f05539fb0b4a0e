"""``enarx demo sev``: two processes, an emulated platform, the real ``/dev/kvm``, and a host that attacks."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration import demo_runs
from tests.integration.demo_runs import demo, error_of

from enarx.api.demo_guest import assemble
from enarx.host.demo.attacks import SevAttack
from ketuvim import Kvm
from ketuvim.interpreter import NOTICE

CHECKS = {
    SevAttack.MEASUREMENT: "sev.measure",
    SevAttack.CHAIN: "sev.pdh.signature",
    SevAttack.POLICY: "firmware.launch_start",
    SevAttack.SECRET_REPLAY: "firmware.launch_secret",
    SevAttack.FIRMWARE_VERSION: "sev.measure",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a platform that all tests use."""
    home = tmp_path_factory.mktemp("sev") / "state"
    with demo_runs.platform("sev", home):
        yield home


@pytest.mark.parametrize(
    ("a", "b", "total"),
    [
        ("2", "2", "4"),
        ("0", "0", "0"),
        ("5", "7", "12"),
        ("65535", "0", "65535"),
        ("40000", "25535", "65535"),
    ],
)
def test_the_guest_adds_on_kvm(kvm: Kvm, home: Path, a: str, b: str, total: str) -> None:
    done = demo("sev", a, b, "--platform", str(home))
    assert (done.returncode, done.stdout) == (0, f"{total}\n"), done.stderr
    assert "EMULATED sev" in done.stderr
    assert "Guest Launched on /dev/kvm" in done.stderr


def test_the_dialogue_names_every_step_and_who_takes_it(home: Path, kvm: Kvm) -> None:
    done = demo("sev", "2", "3", "--platform", str(home), "--json")
    document = json.loads(done.stdout)
    told = [(line["side"], line["to_peer"], line["text"]) for line in document.pop("dialogue")]
    steps = [
        ("tenant", True, "Certificate Chain, please"),
        ("host", True, "Certificate Chain; firmware"),
        ("tenant", False, "Chain OK"),
        ("tenant", True, "Policy 2b000016, Session Keys"),
        ("host", True, "VM Measurement: "),
        ("tenant", False, "Measurement OK"),
        ("tenant", True, "Encrypted Code/Data: "),
        ("host", False, "Inject Encrypted Code/Data"),
        ("host", False, "Guest Launched on /dev/kvm"),
        ("host", True, "Guest printed '5'"),
    ]
    assert [(side, to_peer) for side, to_peer, _ in told] == [(side, to_peer) for side, to_peer, _ in steps]
    assert all(said.startswith(text) for (_, _, said), (_, _, text) in zip(told, steps, strict=True))
    assert document == {
        "schema": "enarx.demo/1", "tee": "sev", "emulated": True, "attack": None,
        "operands": [2, 3], "sum": 5, "interpreted": False,
    }  # fmt: skip


def test_neither_code_nor_numbers_are_said_in_the_clear(home: Path) -> None:
    done = demo("sev", "4660", "8721", "--platform", str(home), "--kvm", "/dev/none")
    assert done.stdout == "13381\n"
    assert assemble(4660, 8721).hex() not in done.stderr.lower()
    assert not re.search(r"\b(4660|8721)\b", done.stderr)


def test_without_kvm_the_guest_is_interpreted_and_that_is_said(home: Path) -> None:
    done = demo("sev", "40000", "2", "--platform", str(home), "--kvm", "/dev/none")
    assert (done.returncode, done.stdout) == (0, "40002\n"), done.stderr
    assert NOTICE in done.stderr


@pytest.mark.parametrize("attack", SevAttack, ids=lambda attack: attack.value)
def test_every_attack_is_refused_by_the_check_that_is_meant_for_it(home: Path, attack: SevAttack) -> None:
    error = error_of("sev", "2", "2", "--platform", str(home), "--attack", attack.value)
    assert (error["exit_code"], error["check"]) == (1, CHECKS[attack])
    assert error["message"].startswith(f"{CHECKS[attack]}: ")
    texts = [line["text"] for line in error["dialogue"]]
    assert any(text.startswith("ATTACK: ") for text in texts)
    assert texts[-1] == f"Refused: {CHECKS[attack]}"
    assert not any("Guest printed" in text for text in texts)


@pytest.mark.parametrize(
    "attack", [SevAttack.POLICY, SevAttack.SECRET_REPLAY], ids=lambda attack: attack.value
)
def test_what_the_firmware_refuses_it_refuses_with_its_own_status(home: Path, attack: SevAttack) -> None:
    done = demo("sev", "2", "2", "--platform", str(home), "--attack", attack.value)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: {CHECKS[attack]}: BAD_MEASUREMENT" in done.stderr


def test_it_starts_a_platform_of_its_own_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = demo("sev", "1", "2", TMPDIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_ended_by_a_signal_it_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = demo_runs.start("sev", "1", "2", TMPDIR=str(tmp_path))
    assert process.stderr is not None
    assert "EMULATED" in process.stderr.readline()
    process.send_signal(number)
    _, said = process.communicate(timeout=demo_runs.TIMEOUT_S)
    assert process.returncode == code
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("side", ["host", "tenant"])
def test_a_side_that_is_killed_ends_the_demo(tmp_path: Path, side: str) -> None:
    with demo_runs.platform("sev", tmp_path / "state") as platform:
        demo("sev", "1", "1", "--platform", str(tmp_path / "state"))
        process = demo_runs.start("sev", "1", "1", "--platform", str(tmp_path / "state"))
        assert process.stderr is not None
        assert "EMULATED" in process.stderr.readline()
        demo_runs.side_of(process, side)
        platform.send_signal(signal.SIGSTOP)  # the host waits for its firmware
        code, stderr = demo_runs.kill(process, side)
        platform.send_signal(signal.SIGCONT)
    assert code == 4
    assert f"the {side} was killed by signal 9" in stderr


def test_a_platform_that_is_gone(tmp_path: Path) -> None:
    error = error_of("sev", "1", "1", "--platform", str(tmp_path))
    assert (error["exit_code"], error["message"][:11]) == (4, "no platform")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "missing argument 'A'"),
        (("1",), "missing argument 'B'"),
        (("1", "2", "3"), "unexpected extra argument"),
        (("x", "2"), "not a valid integer"),
        (("-1", "2"), "no such option"),
        (("--", "-1", "2"), "-1 is not in the range"),
        (("65536", "0"), "65536 is not in the range"),
        (("65535", "1"), "A + B is 65536"),
        (("1", "1", "--attack", "replay"), "is not one of"),
        (("1", "1", "--platform", "/nowhere"), "does not exist"),
        (("1", "1", "--device", "/dev/sev"), "belong together"),
        (
            ("1", "1", "--device", "/dev/sev", "--certificates", "pyproject.toml", "--platform", "/"),
            "exclude",
        ),
    ],
)
def test_wrong_arguments_are_usage_errors(arguments: tuple[str, ...], message: str) -> None:
    done = demo("sev", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message.lower() in done.stderr.lower()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "/dev/sev-that-is-not-there", "--certificates", "pyproject.toml"), "cannot be opened"),
        (("--kvm", "/dev/null"), "is not KVM"),
    ],
)
def test_a_device_that_is_none(home: Path, options: tuple[str, ...], message: str) -> None:
    own = () if "--device" in options else ("--platform", str(home))
    error = error_of("sev", "1", "1", *options, *own)
    assert error["exit_code"] == 4
    assert message in error["message"]
