"""SNP reports under a root of our own: everything AMD's secure processor and key service sign, with any
mistake in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from tests.forge.pki import Cert, amd_name, ec_key, rsa_key

from enarx.attest import Collateral, TrustAnchors, Vendor
from enarx.attest.snp._report import Line, Tcb
from enarx_emulator.amd.chip import pack_tcb
from enarx_emulator.amd.endorsement import AMD_ARC, endorsement_extensions
from enarx_emulator.amd.report import pack_report

HWID = bytes(range(0x40, 0x80))
TCB = {"bootloader": 4, "tee": 1, "snp": 24, "microcode": 213}
MEASUREMENT = bytes(range(1, 49))
REPORT_DATA = bytes(range(0x80, 0xC0))


def tcb_bytes(
    fmc: int | None = None, bootloader: int = 4, tee: int = 1, snp: int = 24, microcode: int = 213
) -> bytes:
    """TCB_VERSION in the layout of Milan, or with ``fmc`` of Turin."""
    line = Line.MILAN if fmc is None else Line.TURIN
    return pack_tcb(Tcb(fmc=fmc, bootloader=bootloader, tee=tee, snp=snp, microcode=microcode), line)


def extensions(
    product: str = "Milan-B0",
    tcb: Mapping[str, int] = TCB,
    hwid: bytes | None = HWID,
    csp_id: str | None = None,
    structure: int = 0,
) -> dict[str, bytes]:
    """What AMD puts into a VCEK or VLEK, by the arcs under 1.3.6.1.4.1.3704.1."""
    return endorsement_extensions(product=product, tcb=tcb, hwid=hwid, csp_id=csp_id, structure=structure)


def ark(line: str = "Milan") -> Cert:
    """The root."""
    return Cert(name=amd_name(f"ARK-{line}"), key=rsa_key("ark"))


def ask(line: str = "Milan", issuer: Cert | None = None) -> Cert:
    """The intermediate of VCEKs."""
    return Cert(
        name=amd_name(f"SEV-{line}"),
        key=rsa_key("ask"),
        issuer=issuer or ark(line),
        path_length=0,
        serial=0x10001,
    )


def asvk(line: str = "Milan") -> Cert:
    """The intermediate of VLEKs."""
    return Cert(
        name=amd_name(f"SEV-VLEK-{line}"),
        key=rsa_key("asvk"),
        issuer=ark(line),
        path_length=0,
        serial=0x10101,
    )


def vek(kind: str, issuer: Cert, extra: Mapping[str, bytes]) -> Cert:
    """A VCEK or VLEK with these AMD extensions."""
    return Cert(
        name=amd_name(f"SEV-{kind}"),
        key=ec_key("vek"),
        issuer=issuer,
        ca=None,
        serial=1,
        extensions=[(AMD_ARC + arc, False, value) for arc, value in extra.items()],
    )


def vcek(issuer: Cert | None = None, **changes: Any) -> Cert:
    """The certificate of the chip, for the firmware of ``report()``."""
    return vek("VCEK", issuer or ask(), extensions(**changes))


def vlek(issuer: Cert | None = None, **changes: Any) -> Cert:
    """The certificate of a provider."""
    return vek("VLEK", issuer or asvk(), extensions(hwid=None, csp_id="CN=example.test", **changes))


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report to be made; ``changes`` are fields of the layout as bytes or little-endian numbers."""

    version: int = 3
    changes: Mapping[str, int | bytes] = field(default_factory=dict)
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec_key("vek"))

    def but(self, **changes: Any) -> Report:
        """The same with changes of fields, and of ``version`` or ``key``."""
        own = {name: changes.pop(name) for name in ("version", "key") if name in changes}
        return replace(self, **own, changes={**self.changes, **changes})

    @property
    def fields(self) -> dict[str, int | bytes]:
        """What a healthy Milan reports."""
        healthy: dict[str, int | bytes] = {
            "version": self.version,
            "policy": 0x3001F,
            "signature_algo": 1,
            "platform_info": 0x25,
            "report_data": REPORT_DATA,
            "measurement": MEASUREMENT,
            "report_id": b"\x11" * 32,
            "report_id_ma": b"\xff" * 32,
            "chip_id": HWID,
            "current_version": bytes([29, 55, 1]),
            "committed_version": bytes([29, 55, 1]),
            **dict.fromkeys(("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"), tcb_bytes()),
        }
        if self.version >= 3:
            healthy["cpuid"] = bytes([0x19, 0x01, 0x01])
        if self.version >= 5:
            healthy |= {"launch_mit_vector": 0b11, "current_mit_vector": 0b111}
        return {**healthy, **self.changes}

    @property
    def raw(self) -> bytes:
        """Make and sign it; ``signature_r`` and ``signature_s`` among the changes replace the signature."""
        return pack_report(self.fields, self.key)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One whole presentation: evidence, collateral, and the roots that the verifier was told to trust."""

    report: Report = field(default_factory=Report)
    leaf: Cert | None = field(default_factory=vcek)
    intermediates: tuple[Cert, ...] = field(default_factory=lambda: (ask(),))
    root: Cert = field(default_factory=ark)
    crls: tuple[bytes, ...] = ()
    trusted: bytes | None = None
    """The root that is trusted, where it is not ``root``."""

    def but(self, **changes: Any) -> Case:
        """The same with changes."""
        return replace(self, **changes)

    @property
    def collateral(self) -> Collateral:
        """What accompanies the report."""
        given = (*((self.leaf,) if self.leaf else ()), *self.intermediates, self.root)
        return Collateral(certificates=tuple(cert.der for cert in given), crls=self.crls)

    @property
    def anchors(self) -> TrustAnchors:
        """The one root."""
        return TrustAnchors.none().adding(self.trusted or self.root.der, name="test root", vendor=Vendor.AMD)
