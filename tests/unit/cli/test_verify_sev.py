"""``enarx verify`` and ``inspect`` of launch evidence: with the owner's session, and without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.forge.sev import DIGEST, TIK, Launch, rsa_key

from enarx.attest.sev import write_session
from enarx.cli._main import main

POLICY = f'version = 1\n[sev-es]\nmeasurement = ["{DIGEST.hex()}"]\nvendor_root = "any"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Evidence, the owner's session, that of somebody else, our root, and a policy that accepts it."""
    launch = Launch()
    (tmp_path / "launch.cbor").write_bytes(launch.raw)
    (tmp_path / "session.json").write_text(write_session(launch.session))
    (tmp_path / "other.json").write_text(write_session(Launch(prepared_for="attacker").session))
    spki = rsa_key("ark").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "root.pem").write_bytes(spki)
    (tmp_path / "policy.toml").write_text(POLICY)
    return tmp_path


def run(folder: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
    arguments = [str(folder / word) if (folder / word).exists() else word for word in words]
    code = main([*arguments, "--json"])
    out = capsys.readouterr().out
    return code, json.loads(out), out


@pytest.mark.parametrize(
    ("more", "code", "verdict", "failures"),
    [
        (["--sev-session", "session.json"], 0, "accepted", []),
        (["--sev-session", "other.json"], 1, "refused", ["sev.session.pdh"]),
        (
            ["--sev-session", "session.json", "--report-data", "00" * 64],
            1,
            "refused",
            ["binding.report_data"],
        ),
        ([], 4, "unavailable", ["sev.session"]),
    ],
)
def test_evidence_of_sev_is_judged_by_whoever_launched_the_guest(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    code: int,
    verdict: str,
    failures: list[str],
) -> None:
    words = ["verify", "launch.cbor", "--policy", "policy.toml", "--root", "root.pem", *more]
    found, document, out = run(folder, *words, capsys=capsys)
    (one,) = document["verdicts"]
    assert (found, one["verdict"], one["failures"]) == (code, verdict, failures)
    assert TIK.hex() not in out


def test_a_session_in_another_form_is_malformed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["verify", "launch.cbor", "--authenticity-only", "--sev-session", "policy.toml"]
    code, document, _ = run(folder, *words, capsys=capsys)
    assert (code, document["error"]["name"]) == (3, "malformed")


def test_inspect_shows_launch_evidence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document, _ = run(folder, "inspect", "launch.cbor", capsys=capsys)
    (section,) = document["files"][0]["sections"]
    assert (code, section["title"]) == (0, "sev evidence (not verified)")
    assert section["fields"]["api"] == "1.40"
    assert section["fields"]["policy.es"] is True


@pytest.mark.parametrize(("session", "code"), [("session.json", 0), ("other.json", 1)])
def test_policies_can_be_tried_on_it(
    folder: Path, capsys: pytest.CaptureFixture[str], session: str, code: int
) -> None:
    words = ["policy", "try", "policy.toml", "launch.cbor", "--root", "root.pem", "--sev-session", session]
    assert run(folder, *words, capsys=capsys)[0] == code
