"""EMULATED Provisioning Certification Service, version 4: what it answers to a path and its query.

Source: Intel, "Provisioning Certification Service API" version 4. Left out: the subscription key that Intel asks for,
and registration by POST, which ``IntelVendor.register`` stands for. ``rootcacrl`` is a caching service's (PCCS).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.hashes import SHA256

from enarx_emulator.answer import Answer
from enarx_emulator.intel._recovery import FIRST_DATE, FIRST_NUMBER
from enarx_emulator.intel.documents import timestamp, validity
from enarx_emulator.intel.pck import pem
from enarx_emulator.intel.processor import MODELS, PCE_ID, Model
from enarx_emulator.intel.vendor import IntelVendor

_PATH: Final = re.compile(r"/(sgx|tdx)/certification/v4/([a-z/]+)")
ROOT_CRL: Final = "/IntelSGXRootCA.der"
"""Intel has it on another host than the rest."""
_JSON: Final = "application/json"
_PEM: Final = "application/x-pem-file"
_CRL: Final = "application/pkix-crl"
_CAS: Final = {"processor": False, "platform": True}
_UPDATES: Final = ("standard", "early")
OAEP_PADDING: Final = OAEP(mgf=MGF1(SHA256()), algorithm=SHA256(), label=None)
"""How a platform encrypts its PPID for the service."""

Query = Mapping[str, str]


class _Refused(Exception):
    def __init__(self, status: int) -> None:
        self.answer = Answer(status=status)


def pcs_answer(vendor: IntelVendor, path: str, query: Query, *, now: datetime) -> Answer:
    """Answer a GET request: 200, 400 for a wrong query, 404 for what is unknown, 410 for a number that is too old."""
    if path == ROOT_CRL:
        return Answer(status=200, headers={"Content-Type": _CRL}, body=vendor.root_crl(now))
    match = _PATH.fullmatch(path)
    make = _RESOURCES.get((match[1], match[2])) if match else None
    if make is None:
        return Answer(status=404)
    try:
        return make(vendor, query, now)
    except _Refused as refused:
        return refused.answer


def _tcb(tee: str) -> Callable[[IntelVendor, Query, datetime], Answer]:
    def answer(vendor: IntelVendor, query: Query, now: datetime) -> Answer:
        number = _number(vendor, query)
        model = _model(query)
        if tee == "TDX" and model.tee_tcb_svn is None:
            raise _Refused(404)
        body = vendor.tcb_info(tee, model, now, number=number)
        return _signed("TCB-Info-Issuer-Chain", vendor, body)

    return answer


def _identity(kind: str) -> Callable[[IntelVendor, Query, datetime], Answer]:
    def answer(vendor: IntelVendor, query: Query, now: datetime) -> Answer:
        body = vendor.identity(kind, now, number=_number(vendor, query))
        return _signed("SGX-Enclave-Identity-Issuer-Chain", vendor, body)

    return answer


def _numbers(tee: str) -> Callable[[IntelVendor, Query, datetime], Answer]:
    def answer(vendor: IntelVendor, query: Query, now: datetime) -> Answer:
        del query
        known = [(FIRST_NUMBER, FIRST_DATE), *vendor.evaluation_dates()]
        listed = [
            {
                "tcbEvaluationDataNumber": number,
                "tcbRecoveryEventDate": timestamp(date),
                "tcbDate": timestamp(date),
            }
            for number, date in reversed(known)
        ]
        body = {"id": tee, "version": 1, **validity(now), "tcbEvalNumbers": listed}
        made = vendor.sign_document("tcbEvaluationDataNumbers", body)
        return _signed("TCB-Evaluation-Data-Numbers-Issuer-Chain", vendor, made)

    return answer


def _pck_crl(vendor: IntelVendor, query: Query, now: datetime) -> Answer:
    multi_package = _CAS.get(query.get("ca", ""))
    encoding = query.get("encoding", "pem")
    if multi_package is None or encoding not in ("pem", "der"):
        raise _Refused(400)
    der = vendor.pck_crl(now, multi_package=multi_package)
    chain = _chain(vendor.pck_ca(multi_package=multi_package).der, vendor.root.der)
    is_der = encoding == "der"
    headers = {"Content-Type": _CRL if is_der else _PEM, "SGX-PCK-CRL-Issuer-Chain": chain}
    return Answer(status=200, headers=headers, body=der if is_der else pem(der, label="X509 CRL"))


def _root_crl(vendor: IntelVendor, query: Query, now: datetime) -> Answer:
    del query
    return Answer(
        status=200, headers={"Content-Type": "text/plain"}, body=vendor.root_crl(now).hex().encode()
    )


def _pck_cert(vendor: IntelVendor, query: Query, now: datetime) -> Answer:
    del now
    ppid = _ppid(vendor, query)
    cpu_svn, pce_svn = _octets(query, "cpusvn", 16), int.from_bytes(_octets(query, "pcesvn", 2), "little")
    platform = vendor.platform(ppid)
    if platform is None:
        raise _Refused(404)
    leaf = vendor.pck(ppid, cpu_svn=cpu_svn, pce_svn=pce_svn)
    model = platform.model
    headers = {
        "Content-Type": _PEM,
        "SGX-PCK-Certificate-Issuer-Chain": _chain(
            vendor.pck_ca(multi_package=model.multi_package).der, vendor.root.der
        ),
        "SGX-TCBm": (cpu_svn + pce_svn.to_bytes(2, "little")).hex(),
        "SGX-PCK-Certificate-CA-Type": "platform" if model.multi_package else "processor",
        "SGX-FMSPC": model.fmspc.hex().upper(),
    }
    return Answer(status=200, headers=headers, body=pem(leaf.der))


def _fmspcs(vendor: IntelVendor, query: Query, now: datetime) -> Answer:
    del vendor, query, now
    listed = [
        {"fmspc": model.fmspc.hex().upper(), "platform": "E5" if model.multi_package else "client"}
        for model in MODELS.values()
    ]
    return Answer(status=200, headers={"Content-Type": _JSON}, body=json.dumps(listed).encode())


_RESOURCES: Final[Mapping[tuple[str, str], Callable[[IntelVendor, Query, datetime], Answer]]] = {
    ("sgx", "pckcert"): _pck_cert,
    ("sgx", "pckcrl"): _pck_crl,
    ("sgx", "rootcacrl"): _root_crl,
    ("sgx", "fmspcs"): _fmspcs,
    ("sgx", "tcb"): _tcb("SGX"),
    ("sgx", "qe/identity"): _identity("QE"),
    ("sgx", "qve/identity"): _identity("QVE"),
    ("sgx", "tcbevaluationdatanumbers"): _numbers("SGX"),
    ("tdx", "tcb"): _tcb("TDX"),
    ("tdx", "qe/identity"): _identity("TD_QE"),
    ("tdx", "tcbevaluationdatanumbers"): _numbers("TDX"),
}


def _signed(header: str, vendor: IntelVendor, body: bytes) -> Answer:
    chain = _chain(vendor.tcb_signing.der, vendor.root.der)
    return Answer(status=200, headers={"Content-Type": _JSON, header: chain}, body=body)


def _chain(*ders: bytes) -> str:
    return quote(pem(*ders))


def _number(vendor: IntelVendor, query: Query) -> int | None:
    """Which TCB recovery the documents shall know; the newest unless the query names one."""
    if query.get("update", "standard") not in _UPDATES:
        raise _Refused(400)
    text = query.get("tcbEvaluationDataNumber")
    if text is None:
        return None
    if "update" in query or not re.fullmatch(r"[0-9]{1,9}", text):
        raise _Refused(400)
    number = int(text)
    if number < FIRST_NUMBER:
        raise _Refused(410)
    if number > vendor.newest_number:
        raise _Refused(404)
    return number


def _model(query: Query) -> Model:
    fmspc = _octets(query, "fmspc", 6)
    found = next((model for model in MODELS.values() if model.fmspc == fmspc), None)
    if found is None:
        raise _Refused(404)
    return found


def _octets(query: Query, name: str, size: int) -> bytes:
    text = query.get(name, "")
    if not re.fullmatch(rf"[0-9A-Fa-f]{{{2 * size}}}", text):
        raise _Refused(400)
    return bytes.fromhex(text)


def _ppid(vendor: IntelVendor, query: Query) -> bytes:
    """The platform's name, which it encrypted for the service."""
    if _octets(query, "pceid", 2) != PCE_ID:
        raise _Refused(404)
    try:
        return vendor.ppid_key.decrypt(_octets(query, "encrypted_ppid", 384), OAEP_PADDING)
    except ValueError:
        raise _Refused(400) from None
