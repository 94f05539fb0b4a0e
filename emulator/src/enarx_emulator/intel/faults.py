"""The faults of Intel platforms, of Intel as their vendor, and of what lies between them and the verifier."""

from __future__ import annotations

from typing import Final

from enarx_emulator.faults import Fault

_BOTH: Final = ("sgx", "tdx")


def _fault(name: str, effect: str, caught_by: str, *, kinds: tuple[str, ...] = _BOTH) -> Fault:
    return Fault(name=name, kinds=kinds, effect=effect, caught_by=caught_by)


_CERTIFICATES: Final = (
    _fault("intel-root-imposter", "the root has the right name and another key", "dcap.pck.root"),
    _fault(
        "intel-pck-ca-name", "the platform is certified by an authority of another name", "dcap.pck.names"
    ),
    _fault("intel-pck-algorithm", "the platform's authority has a key on P-384", "dcap.pck.algorithm"),
    _fault("intel-pck-unsigned", "the PCK certificate is signed by a stranger", "dcap.pck.signature"),
    _fault("intel-pck-expired", "the PCK certificate has expired", "dcap.pck.not_after"),
    _fault("intel-pck-is-ca", "the PCK certificate is that of an authority", "dcap.pck.ca"),
    _fault("intel-pck-chain-order", "root and intermediate are exchanged in the quote", "dcap.pck.order"),
    _fault("intel-pck-revoked", "the PCK certificate is revoked", "dcap.crl.revoked"),
    _fault("intel-ca-revoked", "the root revoked the platforms' authorities", "dcap.crl.revoked"),
    _fault("intel-crl-forged", "the revocation lists are signed by a stranger", "dcap.crl.signature"),
    _fault("intel-tcb-signing-expired", "the signer of documents has expired", "dcap.tcb_signing.not_after"),
)
_DOCUMENTS: Final = (
    _fault("intel-tcb-info-changed", "the TCB info was edited", "dcap.tcb_info.signature"),
    _fault("intel-tcb-info-expired", "the TCB info is older than its next update", "dcap.tcb_info.not_after"),
    _fault("intel-tcb-info-future", "the TCB info is of next month", "dcap.tcb_info.not_before"),
    _fault(
        "intel-collateral-rollback",
        "the documents are of before the last TCB recovery",
        "policy.*.min_tcb_evaluation_data_number",
    ),
    _fault("intel-tcb-info-other-tee", "the TCB info is that for SGX", "dcap.tcb_info.id", kinds=("tdx",)),
    _fault("intel-tcb-info-other-platform", "the TCB info is of another model", "dcap.tcb_info.fmspc"),
    _fault("intel-tcb-no-level", "the platform is older than all that Intel knows", "dcap.tcb.level"),
    _fault("intel-tcb-revoked", "Intel revoked the platform's versions", "dcap.tcb.revoked"),
    _fault("intel-tcb-out-of-date", "the platform's versions are out of date", "policy.*.tcb_status"),
    _fault("intel-qe-identity-changed", "the enclave identity was edited", "dcap.qe_identity.signature"),
    _fault(
        "intel-qe-identity-expired",
        "the identity is older than its next update",
        "dcap.qe_identity.not_after",
    ),
    _fault("intel-qe-identity-future", "the identity is of next month", "dcap.qe_identity.not_before"),
    _fault("intel-qe-identity-other", "the identity is of the verification enclave", "dcap.qe_identity.id"),
    _fault("intel-qe-no-level", "the quoting enclave is older than all that Intel knows", "dcap.qe.level"),
    _fault("intel-qe-out-of-date", "the quoting enclave is out of date", "policy.*.tcb_status"),
    _fault("intel-crl-stale", "the revocation lists are two months old", "policy.*.revocation"),
)
_QUOTES: Final = (
    _fault("intel-quote-version", "the quote is of version 6", "MalformedEvidence"),
    _fault("intel-quote-key-type", "the quote names a key on P-384", "MalformedEvidence"),
    _fault("intel-quote-truncated", "the quote lacks its end", "Malformed"),
    _fault("intel-quote-trailing", "something follows the quote", "dcap.trailing"),
    _fault("intel-quote-vendor-id", "the quote names another vendor", "dcap.vendor_id"),
    _fault("intel-quote-changed", "a bit of the body is flipped", "dcap.signature"),
    _fault("intel-quote-signature-zero", "r and s of the signature are zero", "dcap.signature"),
    _fault(
        "intel-attestation-key-off-curve",
        "the quoting enclave vouches for what is no key",
        "dcap.attestation_key",
    ),
    _fault(
        "intel-attestation-key-uncertified",
        "the quote is signed by a key of no enclave",
        "dcap.qe.report_data",
    ),
    _fault(
        "intel-qe-report-other-pck",
        "another platform's key certified the quoting enclave",
        "dcap.qe.signature",
    ),
    _fault("intel-qe-debug", "the quoting enclave can be read by the host", "dcap.qe.attributes"),
    _fault("intel-qe-other-signer", "the quoting enclave is somebody else's", "dcap.qe.mrsigner"),
    _fault("intel-qe-other-product", "the quoting enclave is another of Intel's", "dcap.qe.isv_prod_id"),
)
_SGX: Final = (
    ("sgx-debug", "the enclave can be read by the host", "policy.sgx.debug"),
    ("sgx-provision-key", "the enclave can name the platform", "policy.sgx.attributes.provision_key"),
    ("sgx-image-changed", "a bit of the image was flipped before the launch", "policy.sgx.measurement"),
    ("sgx-report-replayed", "the first quote is given for ever", "binding.report_data"),
)
_TDX: Final = (
    ("tdx-debug", "the TD can be read by the host", "policy.tdx.debug"),
    ("tdx-image-changed", "a bit of the image was flipped before the launch", "policy.tdx.measurement"),
    ("tdx-migratable", "the TD may move elsewhere", "policy.tdx.td_attributes.migratable"),
    ("tdx-sept-ve-enabled", "the host can inject exceptions", "policy.tdx.td_attributes.sept_ve_disable"),
    ("tdx-service-td", "another TD has power over this one", "policy.tdx.service_td"),
    ("tdx-module-unknown", "the module is of a version that Intel does not know", "tdx.module.known"),
    ("tdx-module-signer", "the module is signed by somebody else", "tdx.module.signer"),
    ("tdx-seam-attributes", "the module is one for debugging", "tdx.module.attributes"),
    ("tdx-module-old", "the module is out of date", "policy.tdx.tcb_status"),
    ("tdx-event-log-changed", "the last event was taken out of the log", "tdx.event_log.rtmr2"),
)
FAULTS: Final[tuple[Fault, ...]] = (
    *_CERTIFICATES,
    *_DOCUMENTS,
    *_QUOTES,
    *(_fault(*one, kinds=("sgx",)) for one in _SGX),
    *(_fault(*one, kinds=("tdx",)) for one in _TDX),
)
"""``*`` in the name of a check stands for the section of the policy, which is that of the machine's kind."""
