"""What the manifest of a folder says of Azure and CCA is compared, and a difference is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.evidence import FOLDER
from tests.forge.azure import Case, tdx

from enarx.cli._main import main
from enarx.cli._manifest_fields import different


def test_only_what_both_name_is_compared() -> None:
    found = {"a": 1, "b": {"c": [1, 2], "d": None}, "e": {"f": 1}}
    assert different(found, {}) == []
    assert different(found, {"a": 1, "b": {"c": [1, 2]}, "more": 1}) == []
    assert different(found, {"a": 2, "b": {"c": [2, 1], "d": 0}, "e": 7}) == ["a", "b.c", "b.d", "e"]


def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(["verify", "--manifest", str(folder), "--json"])
    return code, {row["id"]: row for row in json.loads(capsys.readouterr().out)["samples"]}


@pytest.mark.evidence
def test_samples_of_azure_and_cca_are_judged_and_the_negative_is_refused_by_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = run(FOLDER, capsys)[1]
    chosen = {name: row for name, row in rows.items() if name.startswith(("azure/", "cca/"))}
    assert len(chosen) == 12
    assert all(row["found"] != "not judged" for row in chosen.values())
    assert all(row["agrees"] and row["remark"] is None for row in chosen.values())
    assert chosen["cca/neg-wrong-binding"]["found"] == "reject: cca.realm.key"
    assert chosen["azure/tdx-trustee-v0"]["found"] == "reject: policy.azure-tdx.tcb_status"


CHANGES: list[tuple[str, tuple[str, ...], str]] = [
    ("cca/trustee-example", ("realm_claims", "44238"), "realm_claims.44238"),
    ("cca/trustee-example", ("platform_claims", "2395"), "platform_claims.2395"),
    ("azure/snp-lunal-v1", ("hcl", "user_data"), "hcl.user_data"),
    ("azure/snp-lunal-v1", ("tpm", "pcrs_sha256", "4"), "tpm.pcrs_sha256.4"),
    ("azure/snp-lunal-v1", ("snp", "fields", "measurement"), "snp.fields.measurement"),
    ("azure/tdx-flashbots-ak-chain", ("tdx", "fields", "mrtd"), "tdx.fields.mrtd"),
    ("azure/kinvolk-hcl", ("fields", "chip_id"), "fields.chip_id"),
    ("azure/kinvolk-hcl", ("snp_signature_ok",), "snp_signature_ok"),
]


@pytest.mark.evidence
@pytest.mark.parametrize(("sample", "path", "name"), CHANGES)
def test_a_field_that_the_manifest_has_otherwise_is_named(
    sample: str, path: tuple[str, ...], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    (entry,) = (one for one in manifest["samples"] if one["id"] == sample)
    inner = entry["expected"]
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = "another"
    for other in FOLDER.iterdir():
        if other.is_dir():
            (tmp_path / other.name).symlink_to(other)
    (tmp_path / "manifest.json").write_text(json.dumps({"samples": [entry]}))
    code, rows = run(tmp_path, capsys)
    assert code == 1
    assert rows[sample]["remark"] == f"differs: {name}"


def test_inspect_shows_evidence_of_azure_and_its_report_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "snp.cmw": Case().raw,
        "tdx.cmw": tdx().raw,
        "snp.hcl": Case().hcl_report,
        "tdx.hcl": tdx().hcl_report,
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert main(["inspect", *(str(tmp_path / name) for name in files), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [[section["title"] for section in one["sections"]] for one in document["files"]] == [
        ["azure evidence (not verified)", "certificate"],
        ["azure evidence (not verified)"],
        ["HCL report of Azure (not verified)", "snp evidence (not verified)"],
        ["HCL report of Azure (not verified)"],
    ]
    fields = document["files"][2]["sections"][0]["fields"]
    assert fields["runtime.vm-configuration.secure-boot"] is True
