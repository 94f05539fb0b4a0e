"""What every check asks, by its name: for ``docs/reference/checks.md`` and for who explains a verdict.

Names are an interface (``checks``). A check that is not here, or one here that nothing makes, fails a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_CHAIN: Final = {
    "issuer": "the certificate of each issuer was given",
    "signature": "each certificate is signed by the next",
    "root": "it ends in a pinned root, or one that the caller named",
    "length": "it is not longer than any that vendors use",
    "ca": "issuers are authorities, and the first certificate is none",
    "path_length": "no authority has more below it than it may",
    "key_usage": "issuers may sign certificates",
    "critical": "no certificate has a critical extension that we do not know",
    "not_before": "each certificate is valid already",
    "not_after": "each certificate is still valid",
}
_REVOCATION: Final = {
    "missing": "noted where no list of an issuer was given; policy decides",
    "stale": "noted where the newest list is past its next update; policy decides",
    "key_usage": "the issuer may sign lists",
    "signature": "the list is signed by the issuer",
    "issued": "the list is not from the future",
    "revoked": "no certificate of the chain is listed",
}


def _family(name: str, what: str, questions: Mapping[str, str]) -> dict[str, str]:
    return {f"{name}.{part}": f"{what}: {question}" for part, question in questions.items()}


_SNP: Final = {
    "snp.vmpl.guest": "a guest asked for the report, not the host",
    "snp.signing_key.signed": "the report is signed at all",
    "snp.certificate": "the certificate of the chip or provider (VCEK, VLEK) was given",
    "snp.signing_key": "the certificate is of the kind of key that the report names",
    **_family("snp.chain", "chain of the VCEK or VLEK", _CHAIN),
    "snp.chain.names": "the chain has AMD's names for one product line",
    "snp.chain.algorithm": "certificates are signed with RSA-PSS and SHA-384",
    "snp.chain.self_signed": "the root signed itself",
    **_family("snp.crl", "revocation of the chain", _REVOCATION),
    "snp.certificate.key": "the key of the certificate is one of P-384",
    "snp.signature.range": "both numbers of the signature are in range",
    "snp.signature": "the report is signed by the certificate's key",
    "snp.cpuid": "the processor is of the product line of the certificate",
    "snp.reported_tcb": "the certificate is for the reported versions",
    "snp.chip_id": "the certificate is of the chip in the report",
    "snp.reported_tcb.order": "reported versions are not above committed ones",
    "snp.committed_tcb.order": "committed versions are not above current ones",
    "snp.launch_tcb.order": "versions at launch are not above current ones",
    "snp.version.order": "the committed firmware is not newer than the current one",
    "snp.policy.reserved": "reserved bits of the guest policy are as they must be",
    "snp.policy.abi": "the firmware has the ABI that the guest policy asks for",
    "snp.author_key": "an author's digest is there only where an author key is enabled",
    "snp.platform_info.unknown": "noted where bits of PLATFORM_INFO have no meaning that this release knows",
}
_SEV: Final = {
    "sev.session": "the session of whoever launched the guest was given",
    "sev.chain.platform": "the certificates of the platform were given, for which a launch is prepared",
    "sev.chain.vendor": "ASK and ARK of the platform's generation were given",
    **{
        f"sev.{name}.{part}": f"{name.upper()}: {question}"
        for name in ("pdh", "pek", "oca", "cek")
        for part, question in (
            ("usage", "the certificate is for this role"),
            ("algorithm", "the key is of a kind for this role"),
            ("signers", "it has signatures of exactly those who must sign it"),
        )
    },
    "sev.chain.root": "the ARK is a pinned root, or one that the caller named",
    "sev.ark.usage": "the ARK is one, and certifies itself",
    "sev.ark.signature": "the ARK signed itself; noted where AMD published it without (Naples)",
    "sev.ask.usage": "the ASK is one",
    "sev.ask.certifying_id": "the ASK names this ARK",
    "sev.ask.signature": "the ARK signed the ASK",
    "sev.cek.signature": "the ASK signed the CEK",
    "sev.pek.signature.cek": "the CEK signed the PEK",
    "sev.pek.signature.oca": "the OCA signed the PEK",
    "sev.oca.signature": "the OCA signed itself",
    "sev.oca.owner": "the OCA is the owner whom the caller named",
    "sev.pdh.signature": "the PEK signed the PDH",
    "sev.session.pdh": "the session was prepared for this platform",
    "sev.session.policy": "the session authenticates the policy of the guest",
    "sev.api": "the firmware has the API that the policy asks for",
    "sev.measure": "the measurement is the MAC of an expected digest under the key of the session",
    "sev.session.measure": "the secret of the session was packed for this very launch",
}
_PEF: Final = {
    "pef.session": "the secret and the digests that were sealed were given",
    "pef.machine": "the machine for which they were sealed is one that the caller named",
}
_PRE_BOOT: Final = {
    "launch.secret": "the secret that the launch was given is known, where a proof is to be judged",
    "launch.proof": "report data are proved by the secret that this launch alone was given",
}
_DCAP: Final = {
    "dcap.vendor_id": "the quoting enclave is Intel's by its vendor id",
    "dcap.certification.type": "the quote carries a PCK chain, or one was given",
    "dcap.pck.extension": "the first certificate is one of a platform",
    "dcap.pck.order": "the chain in the quote is whole: leaf, intermediate, root",
    **_family("dcap.pck", "chain of the PCK", _CHAIN),
    "dcap.pck.names": "the chain has Intel's names for platforms",
    "dcap.pck.algorithm": "keys and signatures of the chain are of P-256",
    "dcap.pck.root_certificate": "the root in the quote is the pinned one, unchanged",
    "dcap.qe.signature": "the PCK signed the report of the quoting enclave",
    "dcap.qe.report_data": "the quoting enclave names the attestation key",
    "dcap.attestation_key": "the attestation key is a point of P-256",
    "dcap.signature": "the attestation key signed the quote",
    "dcap.tcb_info": "a TCB info was given",
    "dcap.tcb_info.id": "the TCB info is of this TEE",
    "dcap.tcb_info.fmspc": "the TCB info is of this model of platform",
    "dcap.tcb_info.pce_id": "the TCB info is of this provisioning enclave",
    "dcap.tcb_info.signature": "the TCB info is signed, byte for byte",
    "dcap.tcb_info.not_before": "the TCB info is issued already",
    "dcap.tcb_info.not_after": "the TCB info is not past its next update",
    "dcap.qe_identity": "an identity of the quoting enclave was given",
    "dcap.qe_identity.id": "the identity is of the quoting enclave of this TEE",
    "dcap.qe_identity.signature": "the identity is signed, byte for byte",
    "dcap.qe_identity.not_before": "the identity is issued already",
    "dcap.qe_identity.not_after": "the identity is not past its next update",
    "dcap.tcb_signing.certificate": "the certificate that signs these documents was given",
    **_family("dcap.tcb_signing", "chain of the signer of documents", _CHAIN),
    "dcap.tcb_signing.names": "the signer and its root have Intel's names",
    "dcap.tcb_signing.algorithm": "keys and signatures of that chain are of P-256",
    **_family("dcap.crl", "revocation of both chains", _REVOCATION),
    "dcap.qe.misc_select": "the quoting enclave has the MISCSELECT of its identity",
    "dcap.qe.attributes": "the quoting enclave has the attributes of its identity",
    "dcap.qe.mrsigner": "the quoting enclave is signed by Intel",
    "dcap.qe.isv_prod_id": "the quoting enclave is the product of its identity",
    "dcap.qe.debug": "the quoting enclave cannot be debugged",
    "dcap.qe.level": "Intel supports this version of the quoting enclave",
    "dcap.tcb.level": "Intel supports these versions of the platform",
    "dcap.tcb.revoked": "Intel has not revoked these versions",
    "dcap.trailing": "nothing but zeros follows the quote",
}
_SGX: Final = {"sgx.attributes.unknown": "noted where flags have no meaning that this release knows"}
_TDX: Final = {
    "tdx.module.known": "Intel knows the TDX module with which the TD was launched",
    "tdx.module.current": "Intel knows the TDX module that runs now",
    "tdx.module.signer": "the TDX module is Intel's",
    "tdx.module.attributes": "the TDX module has the attributes that Intel describes",
    "tdx.module.attributes.zero": "the TDX module is none for debugging",
    "tdx.module.level": "Intel supports this version of the TDX module",
    **{f"tdx.event_log.rtmr{at}": f"the event log leads to RTMR{at}" for at in range(4)},
    "tdx.attributes.reserved": "no attribute without meaning is set",
    "tdx.xfam.fixed": "the features that every TD has are set",
    "tdx.xfam.unknown": "noted where features have no meaning that this release knows",
}
_NITRO: Final = {
    "nitro.algorithm": "the document is signed with ES384",
    "nitro.timestamp": "the document is not from the future",
    **_family("nitro.chain", "chain of the document", _CHAIN),
    "nitro.cabundle": "the bundle is the chain, root first, and nothing else",
    "nitro.chain.algorithm": "certificates are signed with ECDSA and SHA-384",
    "nitro.chain.usage": "authorities say what their key is for",
    "nitro.certificate.usage": "the certificate may sign",
    "nitro.certificate.key": "the key of the certificate is one of P-384",
    "nitro.signature": "the document is signed by the certificate's key",
}
_TPM: Final = {
    "tpm.hash": "the quote is signed with SHA-256 or better",
    "tpm.ak": "the attestation key is certified, or named by the caller",
    **_family("tpm.chain", "chain of the attestation key", _CHAIN),
    "tpm.certificate.usage": "the certificate may sign",
    **_family("tpm.crl", "revocation of the chain", _REVOCATION),
    "tpm.signature": "the quote is signed by the attestation key",
    "tpm.pcr_digest": "the values of the PCRs are those that were quoted",
    "tpm.event_log": "the event log leads to the PCRs that it extends",
}
_CCA: Final = {
    "cca.platform.key": "a platform attestation key that is trusted was given",
    "cca.platform.algorithm": "the platform token is signed as the curve of its key demands",
    "cca.platform.signature": "the platform token is signed by the platform's key",
    "cca.realm.key": "the platform vouches for the key of the realm",
    "cca.realm.algorithm": "the realm token is signed as the curve of its key demands",
    "cca.realm.signature": "the realm token is signed by the realm's key",
}
_AZURE: Final = {
    "azure.vmpl": "the paravisor asked for the report, not the guest",
    "azure.runtime_data": "the hardware vouches for keys and configuration of the virtual TPM",
    "azure.td_report": "the quote is of the report that the paravisor kept",
    "azure.ak_certificate.key": "the certificate is of the key of this virtual TPM",
    **_family("azure.ak_certificate.chain", "chain of the attestation key", _CHAIN),
    "azure.ak_certificate.usage": "the certificate may sign",
    **_family("azure.ak_certificate.crl", "revocation of the chain", _REVOCATION),
}
_ANY: Final = {
    "binding.report_data": "the evidence is bound to the caller's challenge; noted where none was given",
    "policy.tee": "the policy has a section for this kind of evidence",
}

CHECKS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "Every kind of evidence": _ANY,
        "Kinds that attest before boot": _PRE_BOOT,
        "AMD SEV and SEV-ES": _SEV,
        "AMD SEV-SNP": _SNP,
        "Intel SGX and TDX": _DCAP,
        "Intel SGX": _SGX,
        "Intel TDX": _TDX,
        "AWS Nitro Enclaves": _NITRO,
        "TPM 2.0": _TPM,
        "Arm CCA": _CCA,
        "IBM PEF": _PEF,
        "Azure": _AZURE,
    }
)
"""The question of each check, by name, by the kind of evidence."""

NAMES: Final = frozenset(name for checks in CHECKS.values() for name in checks)
"""All names but those of policies, which are ``policy.<section>.<key>``."""
