"""``enarx verify``, ``inspect`` and ``policy``: verdicts, exit codes, documents. The evidence is made by the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.evidence import FOLDER
from tests.forge.snp import MEASUREMENT, REPORT_DATA, Case, ark, tcb_bytes, vcek

from enarx.attest import cmw
from enarx.cli._main import main

AT = ["--at", "2025-01-01T00:00:00Z"]
POLICY = (
    f'version = 1\n[snp]\nmeasurement = ["{MEASUREMENT.hex()}"]\nrevocation = "any"\nvendor_root = "any"\n'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A report, its collateral, our root, and a policy that accepts it."""
    case = Case()
    (tmp_path / "report.bin").write_bytes(case.report.raw)
    (tmp_path / "debug.bin").write_bytes(case.report.but(policy=0xB001F, guest_svn=3).raw)
    (tmp_path / "certs").mkdir()
    for number, der in enumerate(case.collateral.certificates):
        (tmp_path / "certs" / f"{number}.der").write_bytes(der)
    (tmp_path / "certs" / "notes.txt").write_text("not collateral")
    (tmp_path / "root.der").write_bytes(case.root.der)
    (tmp_path / "policy.toml").write_text(POLICY)
    return tmp_path


def run(folder: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """Run with ``--json``; words that name files of the folder become paths."""
    arguments = [str(folder / word) if (folder / word).exists() else word for word in words]
    code = main([*arguments, "--json"])
    document: dict[str, Any] = json.loads(capsys.readouterr().out or "{}")
    return code, document


def verify(folder: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    return run(folder, "verify", *words, "--collateral", "certs", "--root", "root.der", *AT, capsys=capsys)


def test_evidence_that_the_policy_accepts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = verify(
        folder, "report.bin", "--policy", "policy.toml", "--report-data", REPORT_DATA.hex(), capsys=capsys
    )
    (verdict,) = document["verdicts"]
    assert (code, verdict["verdict"]) == (0, "accepted")
    assert verdict["claims"]["measurement"] == MEASUREMENT.hex()
    assert verdict["claims"]["root"]["vendor"] is False
    assert verdict["claims"]["bound"] is True
    assert "host_data" in verdict["claims"]["uncovered"]
    assert {"snp.signature", "policy.snp.debug"} <= {check["name"] for check in verdict["checks"]}


def test_without_a_policy_genuine_is_not_enough(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = verify(folder, "report.bin", capsys=capsys)
    assert (code, document["verdicts"][0]["verdict"]) == (1, "authentic")
    code, _ = verify(folder, "report.bin", "--authenticity-only", capsys=capsys)
    assert code == 0


def test_a_policy_without_a_binding_refuses_unless_any_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = verify(folder, "report.bin", "--policy", "policy.toml", capsys=capsys)
    assert (code, document["verdicts"][0]["failures"]) == (1, ["binding.report_data"])
    code, _ = verify(folder, "report.bin", "--policy", "policy.toml", "--report-data", "any", capsys=capsys)
    assert code == 0


def test_another_binding_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = verify(
        folder, "report.bin", "--policy", "policy.toml", "--report-data", "00" * 64, capsys=capsys
    )
    assert (code, document["verdicts"][0]["failures"]) == (1, ["binding.report_data"])


def test_refusal_explains_every_rule_that_is_broken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "policy.toml").write_text(POLICY + "guest_svn = 4")
    words = [
        str(folder / "debug.bin"),
        "--policy",
        str(folder / "policy.toml"),
        "--report-data",
        "any",
        "--explain",
    ]
    common = ["--collateral", str(folder / "certs"), "--root", str(folder / "root.der"), *AT]
    assert main(["verify", *words, *common]) == 1
    out = capsys.readouterr().out
    assert "refused: policy.snp.debug: debug is true, expected false" in out
    assert "and policy.snp.guest_svn: guest_svn is 3, expected at least 4" in out
    assert "failed  policy.snp.debug" in out
    assert "launch it without debugging" in out


def test_our_root_counts_only_when_it_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = run(
        folder, "verify", "report.bin", "--collateral", "certs", "--authenticity-only", *AT, capsys=capsys
    )
    assert (code, document["verdicts"][0]["failures"]) == (1, ["snp.chain.root"])


def test_malformed_missing_and_absent_have_their_exit_codes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "short.bin").write_bytes((folder / "report.bin").read_bytes()[:-1])
    code, document = verify(folder, "short.bin", capsys=capsys)
    assert (code, document["verdicts"][0]["verdict"]) == (3, "malformed")
    code, document = run(folder, "verify", "report.bin", "--root", "root.der", *AT, capsys=capsys)
    assert (code, document["verdicts"][0]["failures"]) == (4, ["snp.certificate"])
    assert verify(folder, "no-such-file", capsys=capsys)[0] == 4


def test_a_root_that_is_none_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder / "report.bin"), "--root", str(folder / "report.bin")]) == 3
    assert "report.bin: " in capsys.readouterr().err


def test_the_worst_of_several_files_decides(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("report.bin", "debug.bin", "--policy", "policy.toml", "--report-data", "any")
    code, document = verify(folder, *words, capsys=capsys)
    assert (code, [one["verdict"] for one in document["verdicts"]]) == (1, ["accepted", "refused"])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["report.bin", "--at", "yesterday"],
        ["report.bin", "--report-data", "xyz"],
        ["report.bin", "--policy", "policy.toml", "--authenticity-only"],
        ["report.bin", "--manifest", "certs"],
    ],
)
def test_wrong_command_lines_are_usage_errors(
    words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, "verify", *words, capsys=capsys)[0] == 2


def test_policy_that_is_none_and_collateral_that_is_none_are_malformed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "policy.toml").write_text("version = 1")
    assert verify(folder, "report.bin", "--policy", "policy.toml", capsys=capsys)[0] == 3
    code, _ = run(folder, "verify", "report.bin", "--collateral", "certs/notes.txt", *AT, capsys=capsys)
    assert code == 3


def test_unknown_kind_is_refused_and_a_known_one_limits(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(folder / "report.bin"), "--tee", "snq"]) == 2
    assert "--tee" in capsys.readouterr().err
    assert verify(folder, "report.bin", "--tee", "tdx", capsys=capsys)[0] == 3
    assert verify(folder, "report.bin", "--tee", "snp", "--authenticity-only", capsys=capsys)[0] == 0


def test_evidence_in_an_envelope_is_verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = cmw.Record(
        "application/octet-stream", (folder / "report.bin").read_bytes(), cmw.Indicator.EVIDENCE
    )
    for encoded in (cmw.to_json(record), cmw.to_cbor(record)):
        (folder / "report.cmw").write_bytes(encoded)
        assert verify(folder, "report.cmw", "--authenticity-only", capsys=capsys)[0] == 0


def test_policy_check_lists_findings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = run(folder, "policy", "check", "policy.toml", capsys=capsys)
    assert (code, len(document["findings"])) == (1, 2)
    (folder / "policy.toml").write_text(f'version = 1\n[snp]\nmeasurement = ["{MEASUREMENT.hex()}"]')
    assert run(folder, "policy", "check", "policy.toml", capsys=capsys) == (
        0,
        {
            "schema": "enarx.policy.check/1",
            "name": "",
            "sha256": run(folder, "policy", "check", "policy.toml", capsys=capsys)[1]["sha256"],
            "sections": ["snp"],
            "findings": [],
        },
    )


def test_policy_try_says_which_evidence_would_pass(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("policy.toml", "report.bin", "debug.bin", "--collateral", "certs", "--root", "root.der", *AT)
    code, document = run(folder, "policy", "try", *words, capsys=capsys)
    assert (code, [one["failures"] for one in document["verdicts"]]) == (1, [[], ["policy.snp.debug"]])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(b"\x16\x02ab", "ab"), (b"\x16\x02a", "160261"), (b"\x04\x01a", "040161"), (b"", "empty")],
)
def test_inspect_shows_what_an_authority_says_of_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: bytes, shown: str
) -> None:
    leaf = vcek()
    (tmp_path / "vcek.der").write_bytes(
        leaf.but(extensions=[*leaf.extensions, ("2.16.840.1.113730.1.13", False, value)]).der
    )
    assert main(["inspect", str(tmp_path / "vcek.der")]) == 0
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines() if "comment" in line] == [["comment", shown]]


def test_inspect_recognises_what_it_is_given(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "crl.der").write_bytes(ark().crl(7))
    (folder / "all.cmw").write_bytes(
        cmw.to_json(
            cmw.Collection({"a": cmw.Record("application/cbor", b"\x01"), "b": cmw.Record(3, b"\x02")})
        )
    )
    code, document = run(folder, "inspect", "report.bin", "certs/0.der", "crl.der", "all.cmw", capsys=capsys)
    titles = [section["title"] for file in document["files"] for section in file["sections"]]
    assert (code, titles) == (
        0,
        ["snp evidence (not verified)", "certificate", "revocation list", "envelope (CMW collection)"],
    )
    report = document["files"][0]["sections"][0]["fields"]
    assert report["measurement"] == MEASUREMENT.hex()
    assert report["reported_tcb.microcode"] == tcb_bytes()[7]
    assert document["files"][1]["sections"][0]["fields"]["tcb.snp"] == 24
    assert run(folder, "inspect", "certs/notes.txt", capsys=capsys)[0] == 3


@pytest.mark.evidence
def test_the_whole_evidence_folder_gives_what_its_manifest_says(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["verify", "--manifest", str(FOLDER), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in document["samples"] if not row["agrees"]] == []
    assert code == 0
    assert document["counts"]["agree"] >= 37


def test_a_folder_without_a_manifest_or_with_a_broken_one(tmp_path: Path) -> None:
    assert main(["verify", "--manifest", str(tmp_path)]) == 4
    for broken in ("[]", "{", '{"samples": [{"id": 3}]}', '{"samples": 3}'):
        (tmp_path / "manifest.json").write_text(broken)
        assert main(["verify", "--manifest", str(tmp_path)]) == 3
