"""``enarx verify`` and ``enarx policy`` on evidence of Azure and of CCA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.forge import azure, cca
from tests.forge.pki import ec_key
from tests.forge.tpm import spki

from enarx.cli._main import main

AT = ("--at", "2025-01-01T00:00:00Z")
AZURE = """
version = 1
[azure-snp]
measurement = "any"
revocation = "any"
vendor_root = "any"
[azure-snp.vtpm]
measurement = "any"
selection = [0, 1, 2, 3, 4, 5, 6, 7]
vendor_root = "any"
"""
CCA = f"""
version = 1
[cca]
measurement = ["{cca.RIM.hex()}"]
software_components = ["{"72" * 32}", "{"71" * 32}"]
vendor_root = "any"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Evidence, collateral, roots and policies as a user would have them."""
    machine, platform = azure.Case(), cca.Case()
    assert machine.snp is not None
    (tmp_path / "azure.cmw").write_bytes(machine.raw)
    (tmp_path / "token.cbor").write_bytes(platform.raw)
    (tmp_path / "certs").mkdir()
    for at, der in enumerate(machine.collateral.certificates):
        (tmp_path / "certs" / f"{at}.der").write_bytes(der)
    (tmp_path / "ark.der").write_bytes(machine.snp.root.der)
    (tmp_path / "cpak.der").write_bytes(spki(ec_key("cpak")))
    (tmp_path / "other.der").write_bytes(spki(ec_key("another")))
    (tmp_path / "azure.toml").write_text(AZURE)
    (tmp_path / "cca.toml").write_text(CCA)
    return tmp_path


def run(
    folder: Path, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, dict[str, Any]]:
    monkeypatch.chdir(folder)
    code = main([*words.split(), "--json"])
    return code, json.loads(capsys.readouterr().out)


VERDICTS = [
    ("azure.cmw --collateral certs --root ark.der --policy azure.toml --report-data {nonce}", 0, []),
    ("azure.cmw --collateral certs --root ark.der --authenticity-only", 0, []),
    ("azure.cmw --collateral certs --policy azure.toml --report-data {nonce}", 1, ["snp.chain.root"]),
    (
        "azure.cmw --collateral certs --root ark.der --policy azure.toml --report-data 00",
        1,
        ["binding.report_data"],
    ),
    (
        "azure.cmw --collateral certs --root ark.der --policy cca.toml --report-data {nonce}",
        1,
        ["policy.tee"],
    ),
    ("token.cbor --root cpak.der --policy cca.toml --report-data {challenge}", 0, []),
    (
        "token.cbor --root other.der --policy cca.toml --report-data {challenge}",
        1,
        ["cca.platform.signature"],
    ),
    ("token.cbor --policy cca.toml --report-data {challenge}", 4, ["cca.platform.key"]),
    ("token.cbor --root cpak.der --policy cca.toml --report-data {nonce}", 1, ["binding.report_data"]),
    ("token.cbor --root cpak.der --tee azure --authenticity-only", 3, []),
]


@pytest.mark.parametrize(("words", "code", "failures"), VERDICTS)
def test_verdict_and_exit_code(
    words: str,
    code: int,
    failures: list[str],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {"nonce": azure.NONCE.hex(), "challenge": cca.CHALLENGE.hex()}
    found, document = run(folder, f"verify {' '.join(AT)} {words.format(**values)}", capsys, monkeypatch)
    assert (found, document["verdicts"][0]["failures"]) == (code, failures)


def test_policies_are_checked_and_tried(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, found = run(folder, "policy check cca.toml", capsys, monkeypatch)
    assert (code, found["sections"], len(found["findings"])) == (1, ["cca"], 1)
    code, found = run(folder, "policy check azure.toml", capsys, monkeypatch)
    assert (code, found["sections"], len(found["findings"])) == (1, ["azure-snp"], 4)
    words = f"azure.cmw token.cbor --collateral certs --root ark.der --root cpak.der {' '.join(AT)}"
    code, found = run(folder, f"policy try azure.toml {words}", capsys, monkeypatch)
    assert (code, [one["failures"] for one in found["verdicts"]]) == (1, [[], ["policy.tee"]])


def test_explanation_lists_checks_and_fields_that_no_rule_looked_at(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    words = "--authenticity-only --explain --collateral certs --root ark.der --root cpak.der"
    assert main(["verify", "azure.cmw", "token.cbor", *words.split(), *AT]) == 0
    text = capsys.readouterr().out
    assert "passed  azure.runtime_data: hardware_report_data is " in text
    assert "passed  cca.realm.key: platform.challenge" in text
    assert "vtpm.reset_count" in text
    assert "realm.personalization_value" in text
