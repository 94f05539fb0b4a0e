"""Messages between an SNP guest and the firmware: sealed, so that the host who carries them can only drop them.

Source: AMD 56860 (SEV-SNP ABI), SNP_GUEST_REQUEST and its tables of messages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from enarx.tcb.wire import Layout
from enarx_emulator.amd.status import SevStatus, refuse, require

PAGE_BYTES: Final = 4096
HEADER_BYTES: Final = 0x60
TAG_BYTES: Final = 16
VMPCK_BYTES: Final = 32
MAX_SEQUENCE: Final = (1 << 64) - 1
_AES_256_GCM, _HEADER_VERSION = 1, 1
_HEADER: Final = Layout(
    "guest message header",
    HEADER_BYTES,
    {
        "authtag": range(0x20),
        "msg_seqno": range(0x20, 0x28),
        "algo": range(0x30, 0x31),
        "hdr_version": range(0x31, 0x32),
        "hdr_size": range(0x32, 0x34),
        "msg_type": range(0x34, 0x35),
        "msg_version": range(0x35, 0x36),
        "msg_size": range(0x36, 0x38),
        "msg_vmpck": range(0x3C, 0x3D),
    },
    (range(0x28, 0x30), range(0x38, 0x3C), range(0x3D, HEADER_BYTES)),
)
_AUTHENTICATED: Final = slice(0x30, HEADER_BYTES)


class MessageType(IntEnum):
    """MSG_TYPE; every response has the number after its request."""

    CPUID_REQ = 1
    CPUID_RSP = 2
    KEY_REQ = 3
    KEY_RSP = 4
    REPORT_REQ = 5
    REPORT_RSP = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestMessage:
    """A message as the two ends see it."""

    sequence: int
    type: int
    version: int
    vmpck: int
    """Which of the four keys seals it, by which the firmware knows the privilege level of the sender."""
    payload: bytes = field(repr=False)

    def seal(self, key: bytes) -> bytes:
        """Give header and ciphertext."""
        head = bytes((_AES_256_GCM, _HEADER_VERSION)) + HEADER_BYTES.to_bytes(2, "little")
        head += bytes((self.type, self.version)) + len(self.payload).to_bytes(2, "little") + bytes(4)
        head = (head + bytes((self.vmpck,))).ljust(HEADER_BYTES - 0x30, b"\0")
        sealed = AESGCM(key).encrypt(_iv(self.sequence), self.payload, head)
        tag = sealed[-TAG_BYTES:].ljust(0x20, b"\0")
        return tag + self.sequence.to_bytes(8, "little") + bytes(8) + head + sealed[:-TAG_BYTES]

    @classmethod
    def open(cls, data: bytes, keys: tuple[bytes, ...]) -> Self:
        """Read what the other end sealed with one of ``keys``.

        Raises ``FirmwareError``: INVALID_PARAM for another form, BAD_MEASUREMENT for another key or a change.
        """
        malformed = SevStatus.INVALID_PARAM
        require(
            HEADER_BYTES < len(data) <= PAGE_BYTES,
            malformed,
            f"message has {len(data)} bytes, expected one page",
        )
        header = {
            name: int.from_bytes(data[at.start : at.stop], "little") for name, at in _HEADER.fields.items()
        }
        known = (header["algo"], header["hdr_version"], header["hdr_size"])
        expected = (_AES_256_GCM, _HEADER_VERSION, HEADER_BYTES)
        require(known == expected, malformed, f"algorithm, version, size are {known}, expected {expected}")
        size = header["msg_size"]
        whole = size > 0 and size % 16 == 0 and HEADER_BYTES + size <= len(data)
        require(whole, malformed, f"payload of {size} bytes is not there, or no multiple of 16")
        vmpck = header["msg_vmpck"]
        require(vmpck < len(keys), malformed, f"no key has the number {vmpck}")
        ciphertext = data[HEADER_BYTES : HEADER_BYTES + size] + data[:TAG_BYTES]
        try:
            payload = AESGCM(keys[vmpck]).decrypt(_iv(header["msg_seqno"]), ciphertext, data[_AUTHENTICATED])
        except InvalidTag:
            raise refuse(SevStatus.BAD_MEASUREMENT, "the message is not sealed with this key") from None
        return cls(
            sequence=header["msg_seqno"],
            type=header["msg_type"],
            version=header["msg_version"],
            vmpck=vmpck,
            payload=payload,
        )


def _iv(sequence: int) -> bytes:
    return sequence.to_bytes(12, "little")


REPORT_REQUEST: Final = Layout(
    "MSG_REPORT_REQ",
    0x60,
    {"report_data": range(0x40), "vmpl": range(0x40, 0x44), "key_sel": range(0x44, 0x48)},
    (range(0x48, 0x60),),
)
KEY_REQUEST: Final = Layout(
    "MSG_KEY_REQ",
    0x20,
    {
        "root_key_select": range(4),
        "guest_field_select": range(0x08, 0x10),
        "vmpl": range(0x10, 0x14),
        "guest_svn": range(0x14, 0x18),
        "tcb_version": range(0x18, 0x20),
    },
    (range(4, 8),),
)
KEY_REQUEST_2: Final = Layout(
    "MSG_KEY_REQ version 2",
    0x30,
    {**KEY_REQUEST.fields, "launch_mit_vector": range(0x20, 0x28)},
    (*KEY_REQUEST.reserved, range(0x28, 0x30)),
)
RESPONSE_HEAD_BYTES: Final = 0x20
"""Of both responses: status, and of a report its size."""
KEY_BYTES: Final = 32


class KeySelect(IntEnum):
    """KEY_SEL: which endorsement key."""

    VLEK_OR_VCEK = 0
    VCEK = 1
    VLEK = 2
