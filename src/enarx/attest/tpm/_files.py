"""The files in which tools leave the parts of a quote, recognised by their content: tpm2-tools write one for each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from enarx.attest.tpm._quote import HEAD, parse_signature
from enarx.attest.tpm._verify import is_signed
from enarx.attest.x509 import parse_certificate
from enarx.tcb.errors import Malformed

_SELECTION_BYTES: Final = 132
"""TPML_PCR_SELECTION as it lies in memory: a number, and room for sixteen banks of eight bytes."""
_DIGESTS: Final = 8
_DIGEST_BYTES: Final = 66
"""TPM2B_DIGEST as it lies in memory: a size, and room for 64 bytes."""
_LIST_BYTES: Final = 4 + _DIGESTS * _DIGEST_BYTES


def looks_like_quote(data: bytes) -> bool:
    """Say whether ``data`` begins as TPMS_ATTEST of a quote; never raises."""
    return data.startswith(HEAD)


def looks_like_signature(data: bytes) -> bool:
    """Say whether ``data`` is a TPMT_SIGNATURE; never raises."""
    try:
        parse_signature(data)
    except Malformed:
        return False
    return True


def read_tpm2_pcrs(data: bytes) -> bytes | None:
    """Give the values in a file of ``tpm2_quote --pcr``, one behind the other; nothing for any other file.

    It has a selection and lists of up to eight digests, little endian and padded, as they lie in the tools' memory.
    """
    banks = int.from_bytes(data[:4], "little")
    lists = int.from_bytes(data[_SELECTION_BYTES : _SELECTION_BYTES + 4], "little")
    if not 0 < banks <= 16 or len(data) != _SELECTION_BYTES + 4 + lists * _LIST_BYTES or not lists:
        return None
    values = b""
    for start in range(_SELECTION_BYTES + 4, len(data), _LIST_BYTES):
        count = int.from_bytes(data[start : start + 4], "little")
        if count > _DIGESTS:
            return None
        for at in range(start + 4, start + 4 + count * _DIGEST_BYTES, _DIGEST_BYTES):
            size = int.from_bytes(data[at : at + 2], "little")
            if size > _DIGEST_BYTES - 2:
                return None
            values += data[at + 2 : at + 2 + size]
    return values


def find_certificate(quote: bytes, signature: bytes, certificates: Iterable[bytes]) -> bytes | None:
    """Give the one whose key made the signature, if there is one. Raises ``Malformed``."""
    parsed = parse_signature(signature)
    signing = (der for der in certificates if is_signed(quote, parsed, parse_certificate(der).spki))
    return next(signing, None)
