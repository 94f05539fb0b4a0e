"""A folder of recorded evidence with a manifest of what each sample must give: judge all of it and compare."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Cache,
    Claims,
    Collateral,
    EvidenceRejected,
    Policy,
    TrustAnchors,
    Vendor,
    Verifier,
    explain,
)
from enarx.attest._verifier import recognise
from enarx.attest.material import recognise_collateral
from enarx.attest.registry import BUILTIN
from enarx.cli._exit import ExitCode
from enarx.cli._files import read
from enarx.cli._manifest_fields import DOCUMENTS, different
from enarx.cli._manifest_fields_quotes import UNVERIFIED
from enarx.cli._manifest_samples import JUDGES, Sample
from enarx.cli._output import Output
from enarx.cli._verify import Verdict, judge
from enarx.tcb.errors import EnarxError, Malformed

EVIDENCE_ROLES: Final = ("report", "quote", "document", "token", "evidence")
"""The role of the file that is the evidence; all other files of a sample are tried as collateral."""

ENROLLED: Final = {"cpak_public": Vendor.ARM_CCA}
"""Roles of keys that a verifier of the sample was told to trust, and for whose evidence."""

TIMELESS: Final = datetime(2025, 1, 1, tzinfo=UTC)
"""When a sample is judged that says nothing of time."""

_SNP: Final = """
    revocation = "any"
    signing_key = "any"
    chip_hidden = "any"
    vmpl = "any"
    provisional_firmware = "any"
"""
_AZURE: Final = """
    vtpm = { measurement = "any", selection = "any" }
    vm = { secure_boot = "any" }
"""

REASONS: Final[Mapping[str, tuple[str, ...]]] = {
    "untrusted root": (".root",),
    "ARK is not a pinned root": ("snp.chain.root",),
    "root is not the pinned AWS root": ("nitro.chain.root",),
    "certificate does not parse": ("malformed",),
    "COSE signature": ("nitro.signature",),
}
"""How the checks end that find what the manifest gives as ``reason``."""

STRICT: Final = {
    "snp": _SNP,
    "azure-snp": _SNP + _AZURE,
    "azure-tdx": _AZURE
    + """
        service_td = "any"
        td_attributes = { sept_ve_disable = "any" }
    """,
    "cca": """
        software_components = "any"
        vendor_root = "any"
    """,
}
"""What ``verdict_strict_policy`` of the manifest means, by section, beyond ``measurement = "any"`` and the defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sample, what it should give, and what it gave."""

    sample: str
    expected: str
    found: str
    agrees: bool
    verdict: Verdict | None
    remark: str


def run_manifest(output: Output, folder: Path, *, explained: bool) -> ExitCode:
    """Judge every sample and print a line each. 0 when all agree, 1 when one does not, 4 without a manifest."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(read(path))
        entries = [(str(entry["id"]), entry) for entry in manifest["samples"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Malformed(f"{path}: not a manifest of evidence: {type(error).__name__}") from None
    rows = [_row(folder, name, entry) for name, entry in entries]
    counts = {
        "agree": sum(row.agrees and row.found != "not judged" for row in rows),
        "differ": sum(not row.agrees for row in rows),
        "not_judged": sum(row.found == "not judged" for row in rows),
    }
    document = {
        "counts": counts,
        "samples": [
            {
                "id": row.sample,
                "expected": row.expected,
                "found": row.found,
                "agrees": row.agrees,
                "remark": row.remark or None,
                "verdict": row.verdict.document() if row.verdict else None,
            }
            for row in rows
        ],
    }
    output.result("enarx.manifest/1", document, "\n".join(_table(rows, counts, explained)))
    return ExitCode.DONE if not counts["differ"] else ExitCode.REFUSED


def _table(rows: list[Row], counts: Mapping[str, int], explained: bool) -> Iterator[str]:
    width = max((len(row.sample) for row in rows), default=6)
    yield f"{'':<6}  {'sample':<{width}}  {'expected':<9}  found"
    for row in rows:
        mark = "-" if row.found == "not judged" else "ok" if row.agrees else "DIFFER"
        remark = f"  ({row.remark})" if row.remark else ""
        yield f"{mark:<6}  {row.sample:<{width}}  {row.expected:<9}  {row.found}{remark}"
        if explained and row.verdict:
            yield explain(row.verdict.checks)
    yield f"{counts['agree']} agree, {counts['differ']} differ, {counts['not_judged']} hold nothing to judge"


def _row(folder: Path, name: str, entry: Mapping[str, Any]) -> Row:
    try:
        return _judged(folder, name, entry)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Malformed(f"manifest: sample {name}: {type(error).__name__}: {error}") from None


def _judged(folder: Path, name: str, entry: Mapping[str, Any]) -> Row:
    if entry["kind"] in JUDGES:
        return _special(name, Sample(folder=folder, entry=entry))
    files: dict[str, str] = {role: path for role, path in entry["files"].items() if isinstance(path, str)}
    expected = _expected(entry["expected"])
    role = next((role for role in EVIDENCE_ROLES if role in files), None)
    known = any(verifier.partition("-")[0] == entry["tech"] for verifier in BUILTIN)
    if role is None or not expected or not known:
        remark = "no verifier for it" if role and not known else "no evidence file"
        return Row(
            sample=name, expected=expected, found="not judged", agrees=True, verdict=None, remark=remark
        )
    latest = (entry.get("appraisals") or [{}])[-1]
    others = [path for other, path in files.items() if other != role and not other.startswith("negative")]
    others += [path for path in latest.get("collateral", {}).values() if isinstance(path, str)]
    moment = latest.get("verification_time") or entry["verification_time"]
    when = datetime.fromisoformat(moment) if moment else TIMELESS
    collateral = Collateral.none()
    for path in others:
        collateral |= _collateral(folder / path)
    anchors, evidence = TrustAnchors.vendor(), read(folder / files[role])
    for enrolled, vendor in ENROLLED.items():
        if enrolled in files:
            anchors = anchors.adding(read(folder / files[enrolled]), name=f"{name} {enrolled}", vendor=vendor)
    verdict = _verdict(name, evidence, anchors, AuthenticityOnly(), collateral, when)
    tee = verdict.claims.tee.value if verdict.claims else ""
    wrong = _different_fields(evidence, verdict.claims, entry["expected"])
    if verdict.claims and verdict.claims.tcb_status != latest.get(
        "expected_tcb_status", verdict.claims.tcb_status
    ):
        wrong.append("tcb_status")
    remark = f"differs: {', '.join(wrong)}" if wrong else ""
    if tee and entry["expected"].get("verdict_strict_policy"):
        verdict = _verdict(name, evidence, anchors, _strict(tee), collateral, when)
    found = "accept" if verdict.code is ExitCode.DONE else "reject"
    reason = verdict.failures[0].name if verdict.failures else verdict.word
    if found == "reject" and not remark:
        remark = _other_reason(entry, {check.name for check in verdict.failures} or {verdict.word})
    return Row(
        sample=name,
        expected=expected,
        found=found if found == "accept" else f"reject: {reason}",
        agrees=found == expected and not remark,
        verdict=verdict,
        remark=remark,
    )


def _expected(expected: Mapping[str, Any]) -> str:
    word = expected.get("verdict_strict_policy") or expected.get("verdict")
    if word is None:
        word = {"valid": "accept", "invalid": "reject"}.get(expected.get("crypto", ""), "")
    return str(word) if word in ("accept", "reject") else ""


def _collateral(path: Path) -> Collateral:
    try:
        return recognise_collateral(read(path))
    except EnarxError:
        return Collateral.none()  # samples also hold inputs of measurements, logs, notes


def _strict(section: str) -> Policy:
    return Policy.parse(
        f'version = 1\n[{section}]\nmeasurement = "any"\n{STRICT.get(section, "")}', BUILTIN.values()
    )


def _verdict(
    name: str,
    evidence: bytes,
    anchors: TrustAnchors,
    policy: Policy | AuthenticityOnly,
    collateral: Collateral,
    when: datetime,
) -> Verdict:
    verifier = Verifier(tees=tuple(BUILTIN.values()), anchors=anchors, policy=policy, cache=Cache())
    return judge(name, evidence, verifier, collateral, when, AnyBinding())


def _different_fields(evidence: bytes, claims: Claims | None, expected: Mapping[str, Any]) -> list[str]:
    """Name the fields that are not what the manifest says, also those of evidence that is refused."""
    wrong: list[str] = []
    try:
        tee, opened = recognise(evidence, tuple(BUILTIN.values()))
        parsed = tee.parse(opened)
    except EnarxError:
        return wrong  # the sample says whether that is as it should be
    if (read_evidence := UNVERIFIED.get(type(parsed))) is not None:
        wrong += different(read_evidence(parsed), expected)
    read_document = DOCUMENTS.get(claims.tee.value) if claims else None
    if claims and read_document:
        wrong += different(read_document(claims), expected)
    return wrong


def _special(name: str, sample: Sample) -> Row:
    """A sample that is no single file of evidence; where the manifest has no verdict, all it says must hold."""
    expected, reason, remark = _expected(sample.expected) or "accept", "", ""
    try:
        if wrong := JUDGES[sample.entry["kind"]](sample):
            remark = f"differs: {', '.join(wrong)}"
    except EvidenceRejected as error:
        reason = error.check.name
    except Malformed:
        reason = "malformed"
    except EnarxError as error:
        reason = str(error)
    if reason:
        remark = _other_reason(sample.entry, {reason})
    found = "reject" if reason else "accept"
    return Row(
        sample=name,
        expected=expected,
        found=f"reject: {reason}" if reason else found,
        agrees=found == expected and not remark,
        verdict=None,
        remark=remark,
    )


def _other_reason(entry: Mapping[str, Any], names: Collection[str]) -> str:
    """Say so when a sample is refused, but for nothing that the manifest has against it."""
    wanted = set(REASONS.get(entry["expected"].get("reason", ""), ()))
    latest = (entry.get("appraisals") or [{}])[-1]
    for finding in entry["expected"].get("policy_findings", ()):
        wanted |= {".debug"} if "DEBUG" in finding else set()
    if wanted and not entry.get("appraisals"):
        wanted.add("dcap.tcb_info")  # the manifest has no collateral either
    if latest.get("expected_tcb_status", "UpToDate") != "UpToDate":
        wanted |= {".tcb_status", ".tcb.level"}
    if "does not" in entry["expected"].get("ccel_replay", ""):
        wanted = {".event_log.rtmr1"}
    if not wanted or any(name.endswith(suffix) for name in names for suffix in wanted):
        return ""
    return f"refused by {', '.join(sorted(names))}, expected {' or '.join(sorted(wanted))}"
