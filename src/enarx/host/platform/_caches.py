"""Facts about collateral that lies on the machine, so that keeps need not fetch it themselves."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Final

from cryptography import x509

from enarx.attest.der import Tag, only
from enarx.attest.errors import MalformedCollateral
from enarx.host.platform._facts import Fact
from enarx.host.platform._machine import Machine

AMD_CACHE: Final = "/var/cache/amd-sev"
INTEL_CACHE: Final = "/var/cache/intel-sgx"


def crl_cache(machine: Machine, name: str, path: str, now: datetime, advice: str) -> Fact:
    """State that the revocation lists at ``path`` can be read and are all in force."""
    data = machine.bytes(path)
    if data is None:
        return Fact(name=name, passed=False, info=f"{path}, missing", advice=advice)
    try:
        until = min(_next_updates(data))
    except (MalformedCollateral, ValueError):
        return Fact(name=name, passed=False, info=f"{path}, damaged", advice=advice)
    passed = until > now
    said = "next update" if passed else "expired on"
    return Fact(
        name=name, passed=passed, info=f"{path}, {said} {_day(until)}", advice="" if passed else advice
    )


def _next_updates(data: bytes) -> list[datetime]:
    """Read ``SEQUENCE { SEQUENCE OF SEQUENCE { url UTF8String, crl CertificateList } }``. Raises if it is not that."""
    entries = only(data, Tag.SEQUENCE, name="crls").inside(Tag.SEQUENCE, "entries")
    dates = list[datetime]()
    while entries.more():
        entry = entries.inside(Tag.SEQUENCE, "entry")
        entry.take(Tag.UTF8_STRING, "url")
        crl = x509.load_der_x509_crl(entry.any()[2])
        if crl.next_update_utc is None:
            raise ValueError("a revocation list without an end")
        dates.append(crl.next_update_utc)
    if not dates:
        raise ValueError("no revocation list")
    return dates


def vcek_cache(machine: Machine) -> Fact:
    """State that a certificate of this machine's chip has been fetched; whether it fits the firmware tells its use."""
    folder = machine.path(AMD_CACHE)
    found = sorted(path.name for path in folder.glob("vcek-*") if path.suffix != ".lck")
    return Fact(
        name="SEV-SNP VCEK key cache file",
        passed=bool(found),
        info=f"{AMD_CACHE}/{found[-1]}" if found else "",
        advice="" if found else "fetch the certificate of this chip from AMD's key distribution service",
    )


def tcb_cache(machine: Machine, now: datetime) -> Fact:
    """State that Intel's description of this platform's security level has been fetched and is in force."""
    name = "TCB & FMSPC cache"
    advice = "fetch the TCB information of this platform from Intel's provisioning certification service"
    if not machine.text(f"{INTEL_CACHE}/fmspc.txt"):
        return Fact(name=name, passed=False, info="Missing FMSPC", advice=advice)
    data = machine.bytes(f"{INTEL_CACHE}/tcb.der")
    if data is None:
        return Fact(name=name, passed=False, info="Missing TCB report", advice=advice)
    try:
        package = only(data, Tag.SEQUENCE, name="tcb")
        package.take(Tag.SEQUENCE, "crts")
        until = datetime.fromisoformat(
            json.loads(package.take(Tag.OCTET_STRING, "report"))["tcbInfo"]["nextUpdate"]
        )
        passed = until > now
    except (MalformedCollateral, ValueError, KeyError, TypeError):
        return Fact(name=name, passed=False, info="Damaged TCB report", advice=advice)
    info = f"Next update: {_day(until)}" if passed else f"Intel TCB expired on {_day(until)}"
    return Fact(name=name, passed=passed, info=info, advice="" if passed else advice)


def _day(date: datetime) -> str:
    return date.strftime("%Y-%m-%d")
