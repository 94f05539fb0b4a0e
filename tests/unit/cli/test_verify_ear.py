"""``enarx verify --ear``: tokens that say what the verdict says; and files of one piece of evidence."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.forge.snp import MEASUREMENT, REPORT_DATA, Case

from enarx.attest import bundle
from enarx.attest.ear import SigningKey, Status, TokenRejected, verify_cwt, verify_jwt
from enarx.cli._main import main

AT = datetime(2025, 1, 1, tzinfo=UTC)
POLICY = (
    f'version = 1\n[snp]\nmeasurement = ["{MEASUREMENT.hex()}"]\nrevocation = "any"\nvendor_root = "any"\n'
)
KEYS: dict[str, SigningKey] = {
    "p256": ec.derive_private_key(7, ec.SECP256R1()),
    "p384": ec.derive_private_key(7, ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A report that the policy accepts, one that it refuses, certificates, our root, keys."""
    case = Case()
    (tmp_path / "report.bin").write_bytes(case.report.raw)
    (tmp_path / "debug.bin").write_bytes(case.report.but(policy=0xB001F).raw)
    for number, der in enumerate(case.collateral.certificates):
        (tmp_path / f"{number}.der").write_bytes(der)
    (tmp_path / "root.der").write_bytes(case.root.der)
    (tmp_path / "policy.toml").write_text(POLICY)
    for name, key in KEYS.items():
        (tmp_path / f"{name}.pem").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
    return tmp_path


def run(folder: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    named = [str(folder / word) if (folder / word).exists() else word for word in words]
    common = ["--root", str(folder / "root.der"), "--at", AT.isoformat(), "--json"]
    code = main(["verify", *named, *common])
    return code, json.loads(capsys.readouterr().out or "{}")


EVIDENCE = ("report.bin", "0.der", "1.der")
RULES = ("--policy", "policy.toml", "--report-data", REPORT_DATA.hex())


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("form", ["jwt", "cwt"])
def test_a_token_says_what_the_verdict_says(
    folder: Path, capsys: pytest.CaptureFixture[str], form: str, name: str
) -> None:
    words = (*EVIDENCE, *RULES, "--ear", form, "--ear-key", f"{name}.pem")
    code, document = run(folder, *words, capsys=capsys)
    assert code == 0
    token, key = document["verdicts"][0]["ear"], KEYS[name]
    checked: dict[str, Any] = {"now": AT, "max_age": timedelta(minutes=1), "nonce": REPORT_DATA}
    if form == "jwt":
        ear = verify_jwt(token, key.public_key(), **checked)
    else:
        ear = verify_cwt(
            base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)), key.public_key(), **checked
        )
    assert (ear.issued, ear.nonce, ear.appraisal.name) == (AT, REPORT_DATA, "snp")
    assert ear.appraisal.claims is not None
    assert ear.appraisal.claims["measurement"] == MEASUREMENT.hex()
    assert ear.appraisal.vector["hardware"] == 97, "our root is no vendor's"
    other: SigningKey = KEYS["p256" if name != "p256" else "p384"]
    with pytest.raises(TokenRejected):
        verify_jwt(token, other.public_key(), **checked) if form == "jwt" else verify_cwt(
            base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)), other.public_key(), **checked
        )


def test_a_refusal_is_signed_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("debug.bin", "0.der", "1.der", *RULES, "--ear", "jwt", "--ear-key", "p256.pem")
    code, document = run(folder, *words, "--ear-out", str(folder / "ear.jwt"), capsys=capsys)
    assert (code, "ear" in document["verdicts"][0]) == (1, False)
    ear = verify_jwt(
        (folder / "ear.jwt").read_text(),
        KEYS["p256"].public_key(),
        now=AT,
        max_age=timedelta(0),
        nonce=None,
    )
    assert (ear.appraisal.name, ear.appraisal.status) == ("snp", Status.CONTRAINDICATED)


def test_an_old_token_does_not_stay_where_there_is_none(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--ear", "cwt", "--ear-key", "p256.pem", "--ear-out", str(folder / "ear.cwt"))
    assert run(folder, *EVIDENCE, *RULES, *words, capsys=capsys)[0] == 0
    assert (folder / "ear.cwt").read_bytes()[:1] == b"\xd2"
    assert run(folder, "report.bin", *RULES, *words, capsys=capsys)[0] == 4
    assert not (folder / "ear.cwt").exists()


@pytest.mark.parametrize(
    "words",
    [
        (*EVIDENCE, "--ear", "jwt"),
        (*EVIDENCE, "--ear-key", "p256.pem"),
        (*EVIDENCE, "--ear-out", "x"),
        (*EVIDENCE, "--ear", "xml", "--ear-key", "p256.pem"),
        ("report.bin", "debug.bin", "--cmw-out", "x"),
    ],
)
def test_options_that_do_not_fit_are_a_wrong_command_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert run(folder, *words, capsys=capsys)[0] == 2


def test_another_kind_of_key_is_refused_before_anything_is_judged(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for data in (key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), b"nothing"):
        (folder / "key.pem").write_bytes(data)
        words = (*EVIDENCE, *RULES, "--ear", "jwt", "--ear-key", "key.pem")
        code, document = run(folder, *words, capsys=capsys)
        assert (code, document["error"]["name"]) == (3, "malformed")


def test_files_of_one_piece_are_judged_as_one_and_can_be_kept_as_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "all.cmw"
    code, document = run(folder, *EVIDENCE, *RULES, "--cmw-out", str(out), capsys=capsys)
    (verdict,) = document["verdicts"]
    assert (code, verdict["file"].count(" + ")) == (0, 2)
    assert bundle.unpack(out.read_bytes())[0] == (folder / "report.bin").read_bytes()
    code, document = run(folder, str(out), *RULES, capsys=capsys)
    assert (code, document["verdicts"][0]["verdict"]) == (0, "accepted")
    assert main(["inspect", str(out), "--json"]) == 0
    shown = [one["title"] for one in json.loads(capsys.readouterr().out)["files"][0]["sections"]]
    assert shown == ["snp evidence (not verified)", "certificate", "certificate"]
    code, document = run(folder, "report.bin", "debug.bin", *RULES, capsys=capsys)
    assert len(document["verdicts"]) == 2
