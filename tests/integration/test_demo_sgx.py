"""``enarx demo sgx``: an enclave on an emulated platform, measured to the last file, and a host that attacks."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration import demo_runs
from tests.integration.demo_runs import demo, error_of

from enarx.host.demo.attacks import SgxAttack

CHECKS = {
    SgxAttack.MRENCLAVE: "policy.sgx.measurement",
    SgxAttack.SIGNATURE: "dcap.signature",
    SgxAttack.KEY_SWAP: "binding.report_data",
    SgxAttack.REPLAY: "binding.report_data",
    SgxAttack.DEBUG: "policy.sgx.debug",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a platform that all tests use."""
    home = tmp_path_factory.mktemp("sgx") / "state"
    with demo_runs.platform("sgx", home):
        yield home


@pytest.mark.parametrize(
    ("a", "b", "total"),
    [("2", "2", "4"), ("0", "0", "0"), ("4294967295", "4294967295", "8589934590")],
)
def test_the_enclave_adds(home: Path, a: str, b: str, total: str) -> None:
    done = demo("sgx", a, b, "--platform", str(home))
    assert (done.returncode, done.stdout) == (0, f"{total}\n"), done.stderr
    assert "EMULATED sgx" in done.stderr


def test_the_dialogue_names_every_step_and_who_takes_it(home: Path) -> None:
    document = json.loads(demo("sgx", "123456789", "1", "--platform", str(home), "--json").stdout)
    told = [(line["side"], line["to_peer"], line["text"]) for line in document.pop("dialogue")]
    steps = [
        ("tenant", True, "Enclave of "),
        ("host", False, "Enclave launched: "),
        ("host", True, "Quote (Attestation) of "),
        ("tenant", False, "Quote OK: "),
        ("tenant", True, "Encrypted Data: "),
        ("host", False, "Encrypted Data goes to the enclave"),
        ("host", True, "Encrypted Sum: "),
        ("tenant", False, "Sum decrypted"),
    ]
    assert [(side, to_peer) for side, to_peer, _ in told] == [(side, to_peer) for side, to_peer, _ in steps]
    assert all(said.startswith(text) for (_, _, said), (_, _, text) in zip(told, steps, strict=True))
    assert not any(number in said for _, _, said in told for number in ("123456789", "123456790", "75bcd15"))
    assert document == {
        "schema": "enarx.demo/1", "tee": "sgx", "emulated": True, "attack": None,
        "operands": [123456789, 1], "sum": 123456790, "interpreted": False,
    }  # fmt: skip


@pytest.mark.parametrize("attack", SgxAttack, ids=lambda attack: attack.value)
def test_every_attack_is_refused_by_the_check_that_is_meant_for_it(home: Path, attack: SgxAttack) -> None:
    error = error_of("sgx", "2", "2", "--platform", str(home), "--attack", attack.value)
    assert (error["exit_code"], error["check"]) == (1, CHECKS[attack])
    assert error["message"].startswith(f"{CHECKS[attack]}: ")
    texts = [line["text"] for line in error["dialogue"]]
    assert any(text.startswith("ATTACK: ") for text in texts)
    assert texts[-1] == f"Refused: {CHECKS[attack]}"
    assert not any(text.startswith("Encrypted Data: ") for text in texts)


def test_it_starts_a_platform_of_its_own_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = demo("sgx", "1", "2", TMPDIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_is_killed_ends_the_demo(tmp_path: Path) -> None:
    with demo_runs.platform("sgx", tmp_path / "state") as platform:
        process = demo_runs.start("sgx", "1", "1", "--platform", str(tmp_path / "state"))
        assert process.stderr is not None
        assert "EMULATED" in process.stderr.readline()
        demo_runs.side_of(process, "host")
        platform.send_signal(signal.SIGSTOP)
        code, stderr = demo_runs.kill(process, "host")
        platform.send_signal(signal.SIGCONT)
    assert code == 4
    assert "the host was killed by signal 9" in stderr


def test_a_platform_of_another_kind(home: Path) -> None:
    error = error_of("sev", "1", "1", "--platform", str(home))
    assert (error["exit_code"], error["message"]) == (4, f"the platform at {home} is sgx, expected sev")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("1",), "missing argument 'B'"),
        (("4294967296", "0"), "4294967296 is not in the range"),
        (("--", "0", "-5"), "-5 is not in the range"),
        (("1.5", "0"), "not a valid integer"),
        (("1", "1", "--attack", "chain"), "is not one of"),
    ],
)
def test_wrong_arguments_are_usage_errors(arguments: tuple[str, ...], message: str) -> None:
    done = demo("sgx", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message.lower() in done.stderr.lower()
