"""TCB info and enclave identities as Intel's provisioning certification service writes and signs them.

Source: Intel, "Provisioning Certification Service API" version 4, and version 3 for TCB info of version 2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

VALID_FOR: Final = timedelta(days=30)
Json = dict[str, Any]


def timestamp(when: datetime) -> str:
    """Give a time as the documents spell it."""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def validity(issued: datetime) -> Json:
    """Give the two dates of a document."""
    return {"issueDate": timestamp(issued), "nextUpdate": timestamp(issued + VALID_FOR)}


def tcb_level(
    *,
    sgx: bytes,
    pce_svn: int,
    tdx: bytes | None,
    status: str,
    date: str,
    advisories: Sequence[str] | None = None,
    version: int = 3,
) -> Json:
    """Give one level of a TCB info; ``tdx=None`` for SGX."""
    tcb: Json
    if version == 2:
        tcb = {f"sgxtcbcomp{at:02}svn": svn for at, svn in enumerate(sgx, 1)}
    else:
        tcb = {"sgxtcbcomponents": [{"svn": svn} for svn in sgx]}
    tcb["pcesvn"] = pce_svn
    if tdx is not None:
        tcb["tdxtcbcomponents"] = [{"svn": svn, "category": "OS/VMM"} for svn in tdx]
    made = {"tcb": tcb, "tcbDate": date, "tcbStatus": status}
    return made if advisories is None else {**made, "advisoryIDs": list(advisories)}


def svn_level(isv_svn: int, *, status: str, date: str, advisories: Sequence[str] | None = None) -> Json:
    """Give one level of an enclave or a module."""
    made = {"tcb": {"isvsvn": isv_svn}, "tcbDate": date, "tcbStatus": status}
    return made if advisories is None else {**made, "advisoryIDs": list(advisories)}


def tdx_module(
    *,
    mrsigner: bytes = bytes(48),
    attributes: bytes = bytes(8),
    mask: bytes = b"\xff" * 8,
    id: str | None = None,  # noqa: A002 -- the document's word
    levels: Sequence[Json] = (),
) -> Json:
    """Give a TDX module's identity; without ``id`` the one of version 0, which has no levels of its own."""
    made: Json = {
        "mrsigner": mrsigner.hex().upper(),
        "attributes": attributes.hex().upper(),
        "attributesMask": mask.hex().upper(),
    }
    return made if id is None else {"id": id, **made, "tcbLevels": list(levels)}


def tcb_info(
    tee: str,
    *,
    fmspc: bytes,
    pce_id: bytes,
    evaluation_number: int,
    issued: datetime,
    levels: Sequence[Json],
    module: Json | None = None,
    modules: Sequence[Json] = (),
    version: int = 3,
) -> Json:
    """Give the body of a TCB info; ``tee`` is SGX or TDX, which has ``module`` and may have ``modules``."""
    made: Json = {"id": tee} if version == 3 else {}
    made |= {
        "version": version,
        **validity(issued),
        "fmspc": fmspc.hex().upper(),
        "pceId": pce_id.hex(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": evaluation_number,
    }
    if module is not None:
        made["tdxModule"] = module
    if modules:
        made["tdxModuleIdentities"] = list(modules)
    return {**made, "tcbLevels": list(levels)}


def enclave_identity(
    kind: str,
    *,
    mrsigner: bytes,
    isv_prod_id: int,
    evaluation_number: int,
    issued: datetime,
    levels: Sequence[Json],
    attributes: bytes = b"\x11" + bytes(15),
    attributes_mask: bytes = bytes.fromhex("fbffffffffffffff0000000000000000"),
) -> Json:
    """Give the body of an enclave identity; ``kind`` is QE, TD_QE or QVE."""
    return {
        "id": kind,
        "version": 2,
        **validity(issued),
        "tcbEvaluationDataNumber": evaluation_number,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": attributes.hex().upper(),
        "attributesMask": attributes_mask.hex().upper(),
        "mrsigner": mrsigner.hex().upper(),
        "isvprodid": isv_prod_id,
        "tcbLevels": list(levels),
    }


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Give r and s of ECDSA with SHA-256, 32 bytes each, big endian."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def body_bytes(body: Mapping[str, Any]) -> bytes:
    """Give a body as it is signed and sent."""
    return json.dumps(body, separators=(",", ":")).encode()


def document(name: str, raw: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Give a document as the service sends it: the body under its name, and its signature in hex."""
    return b'{"' + name.encode() + b'":' + raw + b',"signature":"' + sign(key, raw).hex().encode() + b'"}'
