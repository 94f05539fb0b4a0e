"""``enarx verify``, ``policy try`` and ``inspect`` of what keeps of pre-boot TEEs show in a session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.forge.launch import DIGESTS, REPORT_DATA, SECRET, machine_pem, proof, released, sealed
from tests.forge.sev import DIGEST, Launch, rsa_key

from enarx.attest import cmw
from enarx.attest.launch import write_launch
from enarx.attest.launch_proof import MEDIA_TYPE
from enarx.cli._main import main

POLICY = f"""version = 1
[sev-es]
measurement = ["{DIGEST.hex()}"]
vendor_root = "any"
[pef]
measurement = ["{DIGESTS.measurement.hex()}"]
vendor_root = "any"
"""
ROOTS = ("--root", "ark.pem", "--root", "machine.pem")
BOUND = ("--report-data", REPORT_DATA.hex())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Proofs of both, the launch of SEV, the sessions of their owners, roots, and a policy that accepts them."""
    launch = Launch()
    (tmp_path / "launch.cbor").write_bytes(launch.raw)
    (tmp_path / "sev-proof.cbor").write_bytes(cmw.to_cbor(cmw.Record(MEDIA_TYPE, proof())))
    (tmp_path / "sev.json").write_text(write_launch(released(launch)))
    (tmp_path / "before.json").write_text(write_launch(launch.session))
    (tmp_path / "pef-proof.cbor").write_bytes(cmw.to_cbor(cmw.Record(MEDIA_TYPE, proof(sealed().secret))))
    (tmp_path / "pef.json").write_text(write_launch(sealed()))
    (tmp_path / "other.json").write_text(write_launch(sealed("other")))
    ark = rsa_key("ark").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "ark.pem").write_bytes(ark)
    (tmp_path / "machine.pem").write_bytes(machine_pem())
    (tmp_path / "policy.toml").write_text(POLICY)
    return tmp_path


def run(folder: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
    arguments = [str(folder / word) if (folder / word).exists() else word for word in words]
    code = main([*arguments, "--json"])
    out = capsys.readouterr().out
    return code, json.loads(out), out


SEV, PEF = ("launch.cbor", "sev-proof.cbor"), ("pef-proof.cbor",)


@pytest.mark.parametrize(
    ("files", "session", "more", "code", "verdict", "failures"),
    [
        (SEV, "sev.json", BOUND, 0, "accepted", []),
        (SEV, "sev.json", ("--report-data", "00" * 64), 1, "refused", ["binding.report_data"]),
        (SEV, "sev.json", (), 1, "refused", ["binding.report_data"]),
        (SEV, "before.json", BOUND, 4, "unavailable", ["launch.secret"]),
        (SEV, "pef.json", BOUND, 4, "unavailable", ["sev.session"]),
        (PEF, "pef.json", BOUND, 0, "accepted", []),
        (PEF, "pef.json", ("--report-data", "00" * 64), 1, "refused", ["binding.report_data"]),
        (PEF, "pef.json", (), 1, "refused", ["binding.report_data"]),
        (PEF, "other.json", BOUND, 1, "refused", ["pef.machine"]),
        (PEF, "sev.json", BOUND, 4, "unavailable", ["pef.session"]),
        (SEV[1:], "pef.json", BOUND, 1, "refused", ["launch.proof"]),
    ],
)
def test_what_a_keep_shows_is_judged_by_whoever_launched_it(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    files: tuple[str, ...],
    session: str,
    more: tuple[str, ...],
    code: int,
    verdict: str,
    failures: list[str],
) -> None:
    words = ["verify", *files, "--policy", "policy.toml", *ROOTS, "--launch-session", session, *more]
    found, document, out = run(folder, *words, capsys=capsys)
    (one,) = document["verdicts"]
    assert (found, one["verdict"], one["failures"]) == (code, verdict, failures)
    assert SECRET.hex() not in out
    assert sealed().secret.hex() not in out


def test_both_files_of_a_launch_become_one_envelope(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["verify", *SEV, "--policy", "policy.toml", *ROOTS, "--launch-session", "sev.json", *BOUND]
    assert run(folder, *words, "--cmw-out", str(folder / "one.cmw"), capsys=capsys)[0] == 0
    again = ["verify", "one.cmw", *words[3:]]
    assert run(folder, *again, capsys=capsys)[1]["verdicts"][0]["verdict"] == "accepted"


@pytest.mark.parametrize(("session", "code"), [("pef.json", 0), ("other.json", 1)])
def test_policies_can_be_tried_on_it(
    folder: Path, capsys: pytest.CaptureFixture[str], session: str, code: int
) -> None:
    words = ["policy", "try", "policy.toml", *PEF, *ROOTS, "--launch-session", session]
    assert run(folder, *words, capsys=capsys)[0] == code


def test_inspect_shows_a_proof(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document, _ = run(folder, "inspect", *PEF, capsys=capsys)
    (section,) = document["files"][0]["sections"]
    assert (code, section["title"]) == (0, "pef evidence (not verified)")
    assert section["fields"]["report_data"] == REPORT_DATA.hex()
