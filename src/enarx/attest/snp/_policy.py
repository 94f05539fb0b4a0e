"""What a policy may ask of an SNP report. Each key is one line of docs/reference/policy.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from enarx.attest.policy import TeeRules
from enarx.attest.rules import (
    AtLeast,
    Exactly,
    OneOf,
    Rule,
    at_least,
    boolean,
    denied,
    digests,
    integers,
    key,
    octets,
    table,
    texts,
    version,
    words,
)
from enarx.attest.snp._report import Line, SigningKey

_UPDATE: Final = (
    "update the firmware of the machine (or its BIOS), or lower the minimum if that is what you accept"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MinimumTcb:
    """Least security versions, component by component. ``fmc`` exists from Turin on."""

    fmc: Rule | None = key(at_least(255), path="fmc", field="fmc", default=None, advice=_UPDATE)
    bootloader: Rule | None = key(
        at_least(255), path="bootloader", field="bootloader", default=None, advice=_UPDATE
    )
    tee: Rule | None = key(at_least(255), path="tee", field="tee", default=None, advice=_UPDATE)
    snp: Rule | None = key(at_least(255), path="snp", field="snp", default=None, advice=_UPDATE)
    microcode: Rule | None = key(
        at_least(255), path="microcode", field="microcode", default=None, advice=_UPDATE
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestPolicyRules:
    """Bits of the POLICY with which the guest was launched: ``true`` or ``false`` must be exactly so."""

    smt: Rule | None = key(
        boolean,
        path="smt",
        field="smt",
        default=None,
        advice="launch the guest with a policy that forbids simultaneous multithreading",
    )
    migrate_ma: Rule = key(
        boolean,
        path="migrate_ma",
        field="migrate_ma",
        default=Exactly(False),
        advice="a migration agent can move the guest elsewhere; launch it with a policy that forbids one",
    )
    single_socket: Rule | None = key(
        boolean,
        path="single_socket",
        field="single_socket",
        default=None,
        advice="launch the guest with a policy that requires a single socket",
    )
    cxl: Rule | None = key(
        boolean,
        path="cxl",
        field="cxl",
        default=None,
        advice="launch the guest with a policy that forbids CXL",
    )
    mem_aes_256_xts: Rule | None = key(
        boolean,
        path="mem_aes_256_xts",
        field="mem_aes_256_xts",
        default=None,
        advice="launch the guest with a policy that requires AES-256-XTS",
    )
    rapl_disable: Rule | None = key(
        boolean,
        path="rapl_disable",
        field="rapl_disable",
        default=None,
        advice="launch the guest with a policy that requires RAPL to be off",
    )
    ciphertext_hiding: Rule | None = key(
        boolean,
        path="ciphertext_hiding",
        field="ciphertext_hiding",
        default=None,
        advice="launch the guest with a policy that requires ciphertext hiding",
    )
    page_swap_disable: Rule | None = key(
        boolean,
        path="page_swap_disable",
        field="page_swap_disable",
        default=None,
        advice="launch the guest with a policy that refuses page swapping",
    )


_BIOS: Final = "a setting of the machine's BIOS"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformRules:
    """Bits of PLATFORM_INFO: how the machine is configured."""

    smt: Rule | None = key(boolean, path="smt", field="smt", default=None, advice=_BIOS)
    tsme: Rule | None = key(boolean, path="tsme", field="tsme", default=None, advice=_BIOS)
    ecc: Rule | None = key(
        boolean, path="ecc", field="ecc", default=None, advice="needs memory with error correction"
    )
    rapl_disabled: Rule | None = key(
        boolean, path="rapl_disabled", field="rapl_disabled", default=None, advice=_BIOS
    )
    ciphertext_hiding: Rule | None = key(
        boolean,
        path="ciphertext_hiding",
        field="ciphertext_hiding",
        default=None,
        advice="needs Turin, and its host",
    )
    alias_check_complete: Rule | None = key(
        boolean,
        path="alias_check_complete",
        field="alias_check_complete",
        default=None,
        advice="the firmware did not look for aliased memory (BadRAM); update it",
    )
    tio: Rule | None = key(boolean, path="tio", field="tio", default=None, advice=_BIOS)
    unknown: Rule | None = key(
        integers(0, 2**63 - 1),
        path="unknown",
        field="unknown",
        default=None,
        advice="bits without a meaning that this release knows; [0] refuses them",
    )


@dataclass(frozen=True, slots=True)
class Bits:
    """Every bit of a mask must be set."""

    mask: int

    def admits(self, value: object) -> bool:
        """Say whether all are."""
        return isinstance(value, int) and value & self.mask == self.mask

    def __str__(self) -> str:
        return f"every bit of {self.mask:#x}"


def bits(value: object) -> Rule:
    """A non-empty list of bit numbers, 0 to 63, that must all be set."""
    rule = integers(0, 63)(value)
    assert isinstance(rule, OneOf)  # noqa: S101 -- what integers() gives
    return Bits(sum(1 << bit for bit in rule.values))


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpRules(TeeRules):
    """The section ``[snp]``."""

    signing_key: Rule = key(
        words(SigningKey),
        path="detail.signing_key",
        field="key_info.signing_key",
        default=OneOf(frozenset({SigningKey.VCEK})),
        advice='the cloud provider vouches for the machine; write signing_key = ["vlek"] and csp_id if it may',
    )
    csp_id: Rule | None = key(
        texts,
        path="detail.csp_id",
        field=(),
        default=None,
        advice="the provider named in the VLEK is not accepted",
    )
    line: Rule | None = key(
        words(Line),
        path="detail.line",
        field="cpuid",
        default=None,
        advice="another generation of processors",
    )
    chip_id: Rule | None = key(
        octets(8, 64), path="chip_id", field="chip_id", default=None, advice="this machine is not on the list"
    )
    denied_chips: Rule | None = key(
        denied(8, 64),
        path="chip_id",
        field="chip_id",
        default=None,
        any_allowed=False,
        advice="this machine is known to be compromised, or hides which one it is",
    )
    chip_hidden: Rule = key(
        boolean,
        path="detail.chip_hidden",
        field="chip_id",
        default=Exactly(False),
        advice='the machine hides which one it is; write chip_hidden = "any" where the provider is trusted for it',
    )
    vmpl: Rule = key(
        integers(0, 3),
        path="detail.report.vmpl",
        field="vmpl",
        default=OneOf(frozenset({0})),
        advice="the report was asked for at another privilege level of the guest",
    )
    guest_policy: GuestPolicyRules = table(
        GuestPolicyRules, path="detail.policy", field="policy", default=GuestPolicyRules()
    )
    platform: PlatformRules | None = table(PlatformRules, path="detail.platform", field="platform_info")
    provisional_firmware: Rule = key(
        boolean,
        path="detail.provisional_firmware",
        field=("committed_tcb", "current_tcb", "committed_version", "current_version"),
        default=Exactly(False),
        advice="the host can still go back to older firmware; it must commit the running one (SNP_COMMIT)",
    )
    min_reported_tcb: MinimumTcb | None = table(MinimumTcb, path="detail.reported_tcb", field="reported_tcb")
    min_committed_tcb: MinimumTcb | None = table(
        MinimumTcb, path="detail.committed_tcb", field="committed_tcb"
    )
    min_current_tcb: MinimumTcb | None = table(MinimumTcb, path="detail.current_tcb", field="current_tcb")
    min_launch_tcb: MinimumTcb | None = table(MinimumTcb, path="detail.launch_tcb", field="launch_tcb")
    min_firmware: Rule | None = key(
        version(3),
        path="detail.report.committed_version",
        field="committed_version",
        default=None,
        advice=_UPDATE,
    )
    launch_mitigations: Rule | None = key(
        bits,
        path="detail.report.launch_mit_vector",
        field="launch_mit_vector",
        default=None,
        advice="the mitigations were not active when the guest was launched; update and launch again",
    )
    current_mitigations: Rule | None = key(
        bits,
        path="detail.report.current_mit_vector",
        field="current_mit_vector",
        default=None,
        advice=_UPDATE,
    )
    min_report_version: Rule | None = key(
        at_least(5), path="detail.report.version", field="version", default=None, advice=_UPDATE
    )
    id_key_digest: Rule | None = key(
        digests(48),
        path="detail.report.id_key_digest",
        field="id_key_digest",
        default=None,
        advice="launch with an ID block that is signed by an accepted key",
    )
    author_key_digest: Rule | None = key(
        digests(48),
        path="detail.report.author_key_digest",
        field="author_key_digest",
        default=None,
        advice="launch with an ID block whose key an accepted author signed",
    )
    guest_svn: Rule | None = key(
        at_least(2**32 - 1),
        path="detail.report.guest_svn",
        field="guest_svn",
        default=None,
        advice="the ID block is of an older release of the guest",
    )
    family_id: Rule | None = key(octets(16), path="detail.report.family_id", field="family_id", default=None)
    image_id: Rule | None = key(octets(16), path="detail.report.image_id", field="image_id", default=None)
    host_data: Rule | None = key(
        octets(32),
        path="detail.report.host_data",
        field="host_data",
        default=None,
        advice="the host launched the guest with other data",
    )
    report_id: Rule | None = key(
        octets(32),
        path="detail.report.report_id",
        field="report_id",
        default=None,
        advice="another instance of the guest",
    )
    report_id_ma: Rule = key(
        octets(32),
        path="detail.report.report_id_ma",
        field="report_id_ma",
        default=OneOf(frozenset({b"\xff" * 32})),
        advice="the guest has a migration agent",
    )

    def lint(self) -> Iterator[str]:
        """Say what in this section contradicts itself or does nothing."""
        keys = self.signing_key
        if keys.admits(SigningKey.VLEK) and self.csp_id is None:
            yield "signing_key: every cloud provider's key is accepted; name the provider in csp_id"
        if not keys.admits(SigningKey.VLEK) and self.csp_id is not None:
            yield "csp_id: only a VLEK names a provider, and signing_key does not accept one"
        if keys.admits(SigningKey.NONE) and isinstance(keys, OneOf):
            yield "signing_key: an unsigned report is never accepted"
        if self.line is not None and not self.line.admits(Line.TURIN) and not self.line.admits(Line.VENICE):
            for name in ("min_reported_tcb", "min_committed_tcb", "min_current_tcb", "min_launch_tcb"):
                minimum: MinimumTcb | None = getattr(self, name)
                if minimum is not None and isinstance(minimum.fmc, AtLeast):
                    yield f"{name}.fmc: no processor of the accepted lines has it"
