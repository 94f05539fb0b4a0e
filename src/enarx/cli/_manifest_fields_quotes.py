"""How the manifest of an evidence folder spells quotes and documents, read from evidence not yet believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from enarx.attest.dcap import EnclaveReport, Pck, Quote, SgxType, parse_pck_chain
from enarx.attest.nitro import NitroDocument
from enarx.attest.sgx import SgxQuote
from enarx.attest.tdx import TdxQuote
from enarx.attest.tpm import TpmQuote
from enarx.cli._manifest_fields import tdx_fields
from enarx.tcb.errors import Malformed


def sgx_document(evidence: SgxQuote) -> dict[str, Any]:
    """A quote of SGX."""
    enclave = evidence.report
    return {
        "fields": {**_enclave(enclave), "report_data": enclave.report_data.hex()},
        **_envelope(evidence.quote),
    }


def tdx_document(evidence: TdxQuote) -> dict[str, Any]:
    """A quote of TDX."""
    return {"fields": tdx_fields(evidence.report), **_envelope(evidence.quote)}


def nitro_document(document: NitroDocument) -> dict[str, Any]:
    """A document of Nitro."""
    optional = {"public_key": document.public_key, "user_data": document.user_data, "nonce": document.nonce}
    return {
        "fields": {
            "module_id": document.module_id,
            "digest": document.digest,
            "timestamp_ms": round(document.timestamp.timestamp() * 1000),
            "pcrs": {str(index): value.hex() for index, value in document.pcrs.items()},
            **{name: None if value is None else value.hex() for name, value in optional.items()},
            "cabundle_len": len(document.cabundle),
            "cose_protected": document.message.protected.hex(),
        }
    }


def tpm_document(quote: TpmQuote) -> dict[str, Any]:
    """A quote of a TPM, as an entry of ``quotes``."""
    return {
        "signature_scheme": hex(quote.signature.scheme),
        "hash_alg": int(quote.signature.algorithm),
        "fields": {
            "magic": quote.raw[:4].hex(),
            "type": hex(int.from_bytes(quote.raw[4:6], "big")),
            "qualified_signer": quote.qualified_signer.hex(),
            "extra_data": quote.extra_data.hex(),
            "clock": quote.clock,
            "reset_count": quote.reset_count,
            "restart_count": quote.restart_count,
            "safe": int(quote.safe),
            "firmware_version": hex(quote.firmware_version),
            "pcr_selection": [[quote.bank.value, list(quote.selection)]],
            "pcr_digest": quote.pcr_digest.hex(),
        },
    }


def _envelope(quote: Quote) -> dict[str, Any]:
    found: dict[str, Any] = {
        "header": {
            "version": quote.version,
            "tee": quote.tee_type.value,
            "body_type": quote.body_type.value,
            "qesvn": quote.qe_svn,
            "pcesvn": quote.pce_svn,
        },
        "qe": _enclave(quote.qe_report),
    }
    try:
        pck = parse_pck_chain(quote.certification_data).pck
    except Malformed:
        return found  # the sample says why it is refused
    return {**found, "pck": _pck(pck)} if pck else found


def _enclave(report: EnclaveReport) -> dict[str, Any]:
    return {
        "cpusvn": report.cpu_svn.hex(),
        "misc": report.misc_select.hex(),
        "attr": report.attributes_bytes.hex(),
        "mrenclave": report.mrenclave.hex(),
        "mrsigner": report.mrsigner.hex(),
        "prodid": report.isv_prod_id,
        "isvsvn": report.isv_svn,
    }


def _pck(pck: Pck) -> dict[str, Any]:
    bits = {".7.1": pck.dynamic_platform, ".7.2": pck.cached_keys, ".7.3": pck.smt}
    return {
        "fmspc": pck.fmspc.hex(),
        "pceid": pck.pce_id.hex(),
        "pck_cpusvn": pck.cpu_svn.hex(),
        "pck_pcesvn": f"{pck.pce_svn:02x}",
        "sgx_type": f"{list(SgxType).index(pck.sgx_type):02x}",
        "plat_inst": pck.platform_instance_id.hex() if pck.platform_instance_id else None,
        "cfg": {name: "ff" if bit else "00" for name, bit in bits.items() if bit is not None},
        "pck_valid": [pck.certificate.not_before.isoformat(), pck.certificate.not_after.isoformat()],
        "pck_issuer": pck.certificate.issuer_common_name,
    }


UNVERIFIED: Final[Mapping[type[object], Callable[[Any], Mapping[str, Any]]]] = {
    SgxQuote: sgx_document,
    TdxQuote: tdx_document,
    NitroDocument: nitro_document,
    TpmQuote: tpm_document,
}
"""By the type of the parsed evidence: what the manifest's ``expected`` holds, as far as this reads it."""
