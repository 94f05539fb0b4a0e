"""The faults of AMD platforms. Those of certificates and lists are in the vendor, those of reports in the firmware."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from enarx_emulator.faults import Fault

_SNP: Final[Mapping[str, tuple[str, str]]] = {
    # Certificates
    "snp-forged-root": ("the root has the right name and another key", "snp.chain.root"),
    "snp-ask-not-by-ark": ("the ASK is signed by a key that is not the root's", "snp.chain.signature"),
    "snp-vcek-not-by-ask": ("the VCEK is signed by a key that is not the ASK's", "snp.chain.signature"),
    "snp-ask-no-ca": ("the ASK is none that may issue certificates", "snp.chain.ca"),
    "snp-ask-no-cert-sign": ("the ASK's key may not sign certificates", "snp.chain.key_usage"),
    "snp-critical-extension": ("the ASK has a critical extension that nobody knows", "snp.chain.critical"),
    "snp-pkcs1-vcek": ("the VCEK is signed with PKCS #1 v1.5", "snp.chain.algorithm"),
    "snp-wrong-line": ("the VCEK names another product line", "snp.chain.names"),
    "snp-expired-vcek": ("the VCEK has expired", "snp.chain.not_after"),
    "snp-future-vcek": ("the VCEK is not valid yet", "snp.chain.not_before"),
    "snp-missing-vcek": ("nobody has the VCEK", "snp.certificate"),
    "snp-vlek-for-vcek": ("a VLEK is given for a report that the VCEK signed", "snp.signing_key"),
    "snp-vcek-of-other-chip": ("the VCEK names another chip", "snp.chip_id"),
    "snp-vcek-of-older-tcb": ("the VCEK names older firmware than the report", "snp.reported_tcb"),
    # Revocation
    "snp-revoked-ask": ("the ASK is withdrawn", "snp.crl.revoked"),
    "snp-foreign-crl": ("the revocation list is not signed by the root", "snp.crl.signature"),
    "snp-future-crl": ("the revocation list is of tomorrow", "snp.crl.issued"),
    "snp-stale-crl": ("the revocation list is of last year", "policy.snp.revocation"),
    "snp-missing-crl": ("there is no revocation list", "policy.snp.revocation"),
    # Reports that the firmware signs
    "snp-replayed-report": ("the report answers the first challenge for ever", "binding.report_data"),
    "snp-host-report": ("the host asked for the report, not the guest", "snp.vmpl.guest"),
    "snp-other-vmpl": ("the report is of another privilege level", "policy.snp.vmpl"),
    "snp-wrong-cpuid": ("the report is of another product line", "snp.cpuid"),
    "snp-reported-above-committed": ("more is reported than is committed", "snp.reported_tcb.order"),
    "snp-committed-above-current": ("more is committed than runs", "snp.committed_tcb.order"),
    "snp-launch-above-current": ("the guest was launched by newer firmware", "snp.launch_tcb.order"),
    "snp-version-order": ("a newer version is committed than runs", "snp.version.order"),
    "snp-policy-reserved-bit": ("bit 17 of the guest policy is clear", "snp.policy.reserved"),
    "snp-policy-unknown-bit": ("the guest policy has a bit without a meaning", "snp.policy.reserved"),
    "snp-policy-abi": ("the guest policy asks for newer firmware than runs", "snp.policy.abi"),
    "snp-author-digest": ("an author key is reported and not enabled", "snp.author_key"),
    "snp-other-signing-key": ("the report names another kind of key than signed it", "snp.signing_key"),
    "snp-debug": ("the host may debug the guest", "policy.snp.debug"),
    "snp-migration-allowed": ("the guest may be migrated", "policy.snp.guest_policy.migrate_ma"),
    "snp-migration-agent": ("the guest has a migration agent", "policy.snp.report_id_ma"),
    "snp-other-measurement": ("another image was measured", "policy.snp.measurement"),
    "snp-old-firmware": ("the firmware is older than the machine's first", "policy.snp.min_reported_tcb.snp"),
    "snp-uncommitted-firmware": (
        "the firmware is not committed, the host can go back",
        "policy.snp.provisional_firmware",
    ),
    "snp-hidden-chip": ("the chip does not say which one it is", "policy.snp.chip_hidden"),
    "snp-masked-key": ("the firmware does not sign", "snp.signing_key.signed"),
    # Signatures, and what happens on the way
    "snp-zero-signature": ("the numbers of the signature are zero", "snp.signature.range"),
    "snp-huge-signature": ("the numbers of the signature are above the order", "snp.signature.range"),
    "snp-flipped-bit": ("a bit of the measurement is changed on the way", "snp.signature"),
    "snp-other-algorithm": ("the report names another algorithm", "MalformedEvidence"),
    "snp-unsigned-tail": ("a byte that the signature does not cover is set", "Malformed"),
    "snp-unknown-version": ("the report is of version 9", "MalformedEvidence"),
    "snp-truncated": ("the report lacks its last byte", "MalformedEvidence"),
    "snp-trailing-byte": ("a byte follows the report", "Malformed"),
}
_SEV: Final[Mapping[str, tuple[str, str]]] = {
    "sev-forged-root": ("the root has another key", "sev.chain.root"),
    "sev-ask-not-by-ark": ("the ASK is signed by a key that is not the root's", "sev.ask.signature"),
    "sev-ask-names-other-ark": ("the ASK names another root", "sev.chain.vendor"),
    "sev-cek-not-by-ask": ("the CEK is signed by a key that is not the ASK's", "sev.cek.signature"),
    "sev-pek-not-by-cek": ("the PEK is signed by a key that is not the CEK's", "sev.pek.signature.cek"),
    "sev-pek-not-by-oca": ("the PEK is signed by a key that is not the OCA's", "sev.pek.signature.oca"),
    "sev-oca-not-by-itself": ("the OCA is not signed by itself", "sev.oca.signature"),
    "sev-pdh-not-by-pek": ("the PDH is signed by a key that is not the PEK's", "sev.pdh.signature"),
    "sev-pdh-usage": ("the PDH says that it is a PEK", "sev.pdh.usage"),
    "sev-wrong-digest": ("another image was measured", "sev.measure"),
    "sev-wrong-api": ("the firmware measures as another version than the host says", "sev.measure"),
    "sev-wrong-policy": ("the firmware measures another policy than the host says", "sev.measure"),
}
FAULTS: Final[tuple[Fault, ...]] = (
    *(Fault(name=name, kinds=("snp",), effect=effect, caught_by=by) for name, (effect, by) in _SNP.items()),
    *(
        Fault(name=name, kinds=("sev", "sev-es"), effect=effect, caught_by=by)
        for name, (effect, by) in _SEV.items()
    ),
)
