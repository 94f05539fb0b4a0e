"""``enarx verify --manifest`` over the whole folder: every sample is judged as the manifest says, for its reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.evidence import FOLDER

from enarx.attest.catalogue import NAMES
from enarx.cli._main import main

pytestmark = pytest.mark.evidence

REASONS = {
    "cca/neg-wrong-binding": "cca.realm.key",
    "nitro/dstack-debug": "policy.nitro.debug",
    "nitro/evervault-debug": "policy.nitro.debug",
    "nitro/fortanix-proper": "policy.nitro.debug",
    "nitro/neg-forged-root": "nitro.chain.root",
    "nitro/neg-fortanix-tampered-certificate": "malformed",
    "nitro/neg-fortanix-tampered-signature": "nitro.signature",
    "nitro/neg-marlin-custom-root": "nitro.chain.root",
    "sgx/neg-intel-sample-untrusted-root": "dcap.pck.root",
    "sgx/neg-openenclave": "malformed",
    "sgx/v3-dcapqvl-00a067110000": "policy.sgx.tcb_status",
    "sgx/v3-debug-automata-solana": "policy.sgx.debug",
    "sgx/v3-debug-occlum": "policy.sgx.debug",
    "sgx/v3-enarx-icelake": "policy.sgx.tcb_status",
    "sgx/v3-fortanix-pcs": "dcap.tcb_info",
    "sgx/v3-icelake-automata-a": "policy.sgx.tcb_status",
    "sgx/v3-icelake-outdated": "policy.sgx.tcb_status",
    "sgx/v3-openenclave-2022": "policy.sgx.debug",
    "snp/milan-v2-go-sev-guest": "policy.snp.debug",
    "snp/neg-forged-chain-milan": "snp.chain.root",
    "tdx/v4-automata-platform-outdated": "policy.tdx.tcb_status",
    "tdx/v4-debug-trustee": "policy.tdx.debug",
    "tdx/v4-gcp-cos113-ccel": "policy.tdx.tcb_status",
    "tdx/v4-ita-septve0": "policy.tdx.tcb_status",
    "tdx/v4-spr-e4": "dcap.tcb.level",
    "tdx/v4-tappd": "tdx.event_log.rtmr1",
    "tdx/v4-trustee-module03": "policy.tdx.tcb_status",
    "tdx/v5-alibaba-service-td": "policy.tdx.tcb_status",
    "tdx/v5-relaunch-advised": "policy.tdx.tcb_status",
    "tdx/v5-trustee-service-td": "dcap.tcb.level",
    "tpm/neg-ccel-dupe-separator": "malformed",
}
"""Every sample that is refused, with the check that says why; azure's are held by the tests of that kind."""


def judged(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(["verify", "--manifest", str(folder), "--json"])
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, document


def test_every_sample_is_judged_as_the_manifest_says(capsys: pytest.CaptureFixture[str]) -> None:
    code, document = judged(FOLDER, capsys)
    assert [row for row in document["samples"] if not row["agrees"]] == []
    assert code == 0
    assert document["counts"] == {"agree": 77, "differ": 0, "not_judged": 0}
    refused = {row["id"]: row["found"] for row in document["samples"] if row["found"].startswith("reject")}
    found = {name: reason for name, reason in refused.items() if not name.startswith("azure/")}
    assert found == {name: f"reject: {reason}" for name, reason in REASONS.items()}


def test_every_check_that_is_made_is_in_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    _, document = judged(FOLDER, capsys)
    verdicts = [row["verdict"] for row in document["samples"] if row["verdict"]]
    made = {check["name"] for verdict in verdicts for check in verdict["checks"]}
    assert len(made) > 100
    assert {name for name in made - NAMES if not name.startswith("policy.")} == set()


def alone(tmp_path: Path, name: str, change: Callable[[dict[str, Any]], None]) -> Path:
    """A folder with one sample, in which the manifest says something else."""
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    (entry,) = (entry for entry in manifest["samples"] if entry["id"] == name)
    change(entry)
    for path in FOLDER.iterdir():
        if path.name != "manifest.json":
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "manifest.json").write_text(json.dumps({"samples": [entry]}))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("measurement/sev-launch-digests", "n_vectors", 15),
        ("measurement/sgx-enarx-encl", "mrsigner", "00"),
        ("measurement/snp-id-block", "policy", "0x0"),
        ("nitro/dstack-qvl", "fields", {"module_id": "i-0"}),
        ("sgx/v3-enarx-icelake", "qe", {"isvsvn": 8}),
        ("tdx/v4-oak", "pck", {"fmspc": "000000000000"}),
        ("tdx/v4-spr-e4", "fields", {"mrtd": "00"}),
        ("snp/turin-vcek-chain-virtee", "cert_extensions", {"ucode": 8}),
        ("tpm/eventlog-debian-10", "events", 24),
        ("pef/svm-tool-1", "symmetric_key", "00"),
        ("snp/neg-forged-chain-milan", "verdict", "accept"),
        ("nitro/neg-fortanix-tampered-signature", "reason", "untrusted root"),
    ],
)
def test_a_manifest_that_says_otherwise_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, key: str, value: object
) -> None:
    code, document = judged(
        alone(tmp_path, name, lambda entry: entry["expected"].update({key: value})), capsys
    )
    assert (code, document["counts"]["differ"]) == (1, 1)


def test_a_quote_of_a_tpm_whose_registers_are_others_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = alone(tmp_path, "tpm/trustee", lambda entry: None)
    (folder / "tpm").unlink()
    shutil.copytree(FOLDER / "tpm", folder / "tpm")
    path = folder / "tpm" / "trustee" / "quote.pcrs.json"
    values = json.loads(path.read_text())
    values["pcrs"]["0"] = "ff" * 32
    path.chmod(0o644)
    path.write_text(json.dumps(values))
    code, document = judged(folder, capsys)
    assert (code, document["samples"][0]["found"]) == (1, "reject: tpm.pcr_digest")
