"""What SGX and TDX have in common: the quote's envelope, Intel's certificates, TCB info, QE identity and TCB status.

Not a kind of evidence by itself: ``enarx.attest.sgx`` and ``enarx.attest.tdx`` are.
"""

from enarx.attest.dcap._documents import (
    QeIdentity,
    SvnLevel,
    TcbInfo,
    TcbLevel,
    TcbStatus,
    TdxModule,
    parse_qe_identity,
    parse_tcb_info,
)
from enarx.attest.dcap._enclave import EnclaveAttributes, EnclaveReport, parse_enclave_report
from enarx.attest.dcap._pck import Pck, PckChain, SgxType, parse_pck, parse_pck_chain
from enarx.attest.dcap._policy import DcapRules
from enarx.attest.dcap._quote import (
    BodyType,
    CertificationType,
    Quote,
    TeeType,
    looks_like_quote,
    parse_quote,
)
from enarx.attest.dcap._tcb import TcbVerdict
from enarx.attest.dcap._verify import Platform

__all__ = [
    "BodyType",
    "CertificationType",
    "DcapRules",
    "EnclaveAttributes",
    "EnclaveReport",
    "Pck",
    "PckChain",
    "Platform",
    "QeIdentity",
    "Quote",
    "SgxType",
    "SvnLevel",
    "TcbInfo",
    "TcbLevel",
    "TcbStatus",
    "TcbVerdict",
    "TdxModule",
    "TeeType",
    "looks_like_quote",
    "parse_enclave_report",
    "parse_pck",
    "parse_pck_chain",
    "parse_qe_identity",
    "parse_quote",
    "parse_tcb_info",
]
