"""How a report can be wrong: by fields that the firmware signs, and by what happens to it on its way out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

Fields = dict[str, int | bytes]


def _bytes(fields: Fields, name: str) -> bytes:
    value = fields[name]
    assert isinstance(value, bytes)  # noqa: S101 -- only fields that are made as bytes are asked for
    return value


def _number(fields: Fields, name: str) -> int:
    value = fields[name]
    assert isinstance(value, int)  # noqa: S101 -- only fields that are made as numbers are asked for
    return value


def _microcode(fields: Fields, name: str, *, by: int) -> bytes:
    """In every layout of TCB_VERSION the last byte is the microcode."""
    raw = _bytes(fields, name)
    return raw[:7] + bytes((raw[7] + by,))


def _other_line(fields: Fields) -> Fields:
    family, model, stepping = _bytes(fields, "cpuid")
    other = (0x19, 0x11, 0x01) if (family, model) == (0x19, 0x01) else (0x19, 0x01, 0x01)
    return {"cpuid": bytes(other) if "cpuid" in fields else bytes((family, model, stepping))}


_SIGNED: Final[Mapping[str, Callable[[Fields], Fields]]] = {
    "snp-host-report": lambda _: {"vmpl": 0xFFFFFFFF},
    "snp-wrong-cpuid": _other_line,
    "snp-reported-above-committed": lambda fields: {
        "committed_tcb": _microcode(fields, "committed_tcb", by=-1)
    },
    "snp-committed-above-current": lambda fields: {
        "current_tcb": _microcode(fields, "current_tcb", by=-1),
        "launch_tcb": _microcode(fields, "launch_tcb", by=-1),
    },
    "snp-launch-above-current": lambda fields: {"launch_tcb": _microcode(fields, "launch_tcb", by=1)},
    "snp-version-order": lambda fields: {
        "committed_version": bytes((_bytes(fields, "committed_version")[0] + 1,))
        + _bytes(fields, "committed_version")[1:]
    },
    "snp-policy-reserved-bit": lambda fields: {"policy": _number(fields, "policy") & ~(1 << 17)},
    "snp-policy-unknown-bit": lambda fields: {"policy": _number(fields, "policy") | 1 << 40},
    "snp-policy-abi": lambda fields: {"policy": _number(fields, "policy") | 0xFFFF},
    "snp-author-digest": lambda _: {"author_key_digest": b"\xee" * 48},
    "snp-debug": lambda fields: {"policy": _number(fields, "policy") | 1 << 19},
    "snp-migration-allowed": lambda fields: {"policy": _number(fields, "policy") | 1 << 18},
    "snp-migration-agent": lambda _: {"report_id_ma": b"\x5a" * 32},
    "snp-other-vmpl": lambda _: {"vmpl": 3},
    "snp-other-measurement": lambda fields: {"measurement": _bytes(fields, "measurement")[::-1]},
    "snp-other-signing-key": lambda fields: {"key_info": _number(fields, "key_info") ^ 1 << 2},
    "snp-zero-signature": lambda _: {"signature_r": 0, "signature_s": 0},
    "snp-huge-signature": lambda _: {"signature_r": b"\xff" * 48, "signature_s": b"\xff" * 48},
    "snp-other-algorithm": lambda _: {"signature_algo": 2},
    "snp-unknown-version": lambda _: {},
}


def before_signing(fields: Fields, faults: frozenset[str]) -> Fields:
    """What the firmware signs, with what is wrong about it."""
    for name in sorted(faults & _SIGNED.keys()):
        fields = {**fields, **_SIGNED[name](fields)}
    return fields


def _flipped(report: bytes) -> bytes:
    at = 0x90  # the measurement
    return report[:at] + bytes((report[at] ^ 1,)) + report[at + 1 :]


_CARRIED: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "snp-flipped-bit": _flipped,
    "snp-truncated": lambda report: report[:-1],
    "snp-trailing-byte": lambda report: report + b"\0",
    "snp-unsigned-tail": lambda report: report[:-1] + b"\x01",
    "snp-unknown-version": lambda report: b"\x09" + report[1:],
}


def on_the_way(report: bytes, faults: frozenset[str]) -> bytes:
    """What a host makes of a report that it carries outside of the sealed message."""
    for name in sorted(faults & _CARRIED.keys()):
        report = _CARRIED[name](report)
    return report
