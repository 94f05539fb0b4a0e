"""Intel's Provisioning Certification Service, version 4, and caches of it that speak the same (PCCS).

Documents come with their issuers' certificates in a header, percent-encoded.
"""

from __future__ import annotations

from typing import Final

from enarx.attest.collateral import Kind
from enarx.attest.dcap import CertificationType, Quote, TeeType, parse_pck_chain
from enarx.attest.errors import MalformedEvidence
from enarx.attest.fetch._item import REVALIDATED, Item, Plan, document, revocation_list
from enarx.tcb.errors import Unavailable

INTEL_PCS: Final = "https://api.trustedservices.intel.com"
INTEL_ROOT_CRL: Final = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
"""Intel's own service gives the root's list at another place than its caches do."""

_API: Final = "/certification/v4"
_AUTHORITIES: Final = {"Intel SGX PCK Processor CA": "processor", "Intel SGX PCK Platform CA": "platform"}
_TCB_HEADERS: Final = ("tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain")
_IDENTITY_HEADER: Final = "sgx-enclave-identity-issuer-chain"
_CRL_HEADER: Final = "sgx-pck-crl-issuer-chain"


def plan(quote: Quote, base: str, *, with_qve: bool = False) -> Plan:
    """What a quote needs: TCB info of its platform, identity of its quoting enclave, both revocation lists.

    ``with_qve`` adds the identity of Intel's quote verification enclave. Raises ``Unavailable``, ``Malformed``.
    """
    if quote.certification_type is not CertificationType.PCK_CHAIN:
        raise Unavailable(
            f"the quote has certification data of type {quote.certification_type.value}, which does not say what the "
            "platform is",
            hint="let the platform's quote provider put the PCK certificate chain (type 5) into quotes",
        )
    chain = parse_pck_chain(quote.certification_data)
    authority = _AUTHORITIES.get(chain.leaf.issuer_common_name)
    if chain.pck is None or authority is None:
        raise MalformedEvidence(
            f"the first certificate of the quote is {chain.leaf.common_name!r} by {chain.leaf.issuer_common_name!r}, "
            "expected a PCK certificate"
        )
    root, tee = base_of(base), "sgx" if quote.tee_type is TeeType.SGX else "tdx"
    fmspc = chain.pck.fmspc.hex()
    items = [
        Item(
            url=f"{root}/{tee}{_API}/tcb?fmspc={fmspc}",
            read=document(f"tcb-info-{tee}-{fmspc}", Kind.TCB_INFO, *_TCB_HEADERS),
            revalidated=REVALIDATED,
        ),
        _identity(f"{root}/{tee}{_API}/qe/identity", f"qe-identity-{tee}"),
        Item(
            url=f"{root}/sgx{_API}/pckcrl?ca={authority}&encoding=der",
            read=revocation_list(f"pck-{authority}", chain_header=_CRL_HEADER),
            revalidated=REVALIDATED,
        ),
        Item(
            url=INTEL_ROOT_CRL if root == INTEL_PCS else f"{root}/sgx{_API}/rootcacrl",
            read=revocation_list("root-ca"),
            revalidated=REVALIDATED,
        ),
    ]
    if with_qve:
        items.append(_identity(f"{root}/sgx{_API}/qve/identity", "qve-identity"))
    return Plan(choices=(tuple(items),))


def base_of(url: str) -> str:
    """The address up to the API; the form in which Intel's own configuration names a PCCS is taken too."""
    return url.rstrip("/").removesuffix(f"/sgx{_API}")


def _identity(url: str, name: str) -> Item:
    return Item(url=url, read=document(name, Kind.QE_IDENTITY, _IDENTITY_HEADER), revalidated=REVALIDATED)
