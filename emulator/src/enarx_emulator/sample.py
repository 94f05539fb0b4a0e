"""Evidence of a guest that only asks for evidence: samples for whoever writes or tries a verifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from enarx_emulator.errors import EmulatorError
from enarx_emulator.machine import Machine

KINDS: Final = ("snp", "sgx", "tdx")
"""Those whose evidence is one file; the others are attested while they are launched."""
REPORT_DATA_BYTES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What was made."""

    evidence: bytes
    measurement: bytes
    roots: tuple[bytes, ...]
    """The emulated vendor's roots, in PEM."""


def make_sample(machine: Machine, image: bytes, report_data: bytes) -> Sample:
    """Launch ``image`` and be its guest for one question. Raises ``EmulatorError``, ``FirmwareError``."""
    if machine.kind not in KINDS:
        hint = "launch a guest with its owner's session, and let it prove that it has the secret"
        raise EmulatorError(f"{machine.kind} has no evidence of its own", hint=hint)
    if len(report_data) != REPORT_DATA_BYTES:
        raise EmulatorError(f"report data has {len(report_data)} bytes, expected {REPORT_DATA_BYTES}")
    launched = machine.command("launch", {"image": image})
    guest, measurement = launched["guest"], launched["measurement"]
    roots = machine.command("info", {})["roots"]
    if not isinstance(guest, int) or not isinstance(measurement, bytes) or not isinstance(roots, list):
        raise EmulatorError("the machine does not say what it launched")
    try:
        evidence = _evidence(machine, guest, report_data)
    finally:
        machine.command("stop", {"guest": guest})
    named = tuple(root for root in roots if isinstance(root, bytes))
    return Sample(evidence=evidence, measurement=measurement, roots=named)


def _evidence(machine: Machine, guest: int, report_data: bytes) -> bytes:
    tree = machine.guest(guest).tree()
    if "attestation" in tree.list(""):
        tree.write("attestation/user_report_data", report_data)
        return tree.read("attestation/quote")
    tree.make("report/sample")
    tree.write("report/sample/inblob", report_data)
    return tree.read("report/sample/outblob")
