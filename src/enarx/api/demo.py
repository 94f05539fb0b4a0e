"""What tenant and host of the attested demos say to each other, and how each tells people about it.

Both sides are generators: they yield the message that they send (the host first yields nothing), and are sent the
message that comes. Names of messages follow the protocol of the original SEV demo.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeVar

from enarx.tcb.errors import EnarxError, Malformed, ProtocolViolation
from enarx.tcb.wire import Value, Vocabulary, number, octets, text, truth

MAX_MESSAGE_BYTES: Final = 1 << 20
NONCE_BYTES: Final = 32
KEY_BYTES: Final = 32
_BYTE: Final = number(0, 255)
_MAX_ITEMS: Final = 64
_MAX_TEXT: Final = 4096
_VERSION: Final = {"api_major": _BYTE, "api_minor": _BYTE, "build": _BYTE}


class Side(Enum):
    """Who speaks."""

    TENANT = "tenant"
    HOST = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the dialogue, for people."""

    speaker: Side
    text: str
    to_peer: bool = False
    """Said to the other side, as opposed to found out or done alone."""


Say = Callable[[Line], None]


class Message:
    """One message. Nothing but the classes below is ever sent."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal(Message):
    """Either side ends the exchange: the check that failed (or nothing), and why."""

    check: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRequest(Message):
    """SEV 1, tenant: which platform is this?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateChain(Message):
    """SEV 2, host: PDH, PEK, OCA, CEK, ASK, ARK in a row, and the firmware's version."""

    certificates: bytes
    api_major: int
    api_minor: int
    build: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchStart(Message):
    """SEV 3, tenant: policy (4 bytes), Diffie-Hellman certificate (2084), session (128)."""

    policy: bytes
    certificate: bytes
    session: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement(Message):
    """SEV 4, host: MEASURE and MNONCE (48 bytes), and the version of the firmware that measured."""

    measure: bytes
    api_major: int
    api_minor: int
    build: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret(Message):
    """SEV 5, tenant: code and operands for LAUNCH_SECRET, header (52 bytes) and encrypted payload."""

    header: bytes
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed(Message):
    """SEV 6, host: what the guest wrote to its serial line."""

    output: bytes
    interpreted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveRequest(Message):
    """SGX 1, tenant: start this enclave and let it answer this challenge."""

    image: bytes
    argv: list[str]
    nonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote(Message):
    """SGX 2, host: the quote, the key that the enclave said it is for, and what Intel says of the platform."""

    quote: bytes
    key: bytes
    certificates: list[bytes]
    crls: list[bytes]
    documents: list[list[str | bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed(Message):
    """SGX 3, tenant: the operands for the enclave; SGX 4, host: the sum for the tenant. HPKE both ways."""

    data: bytes


def _list_of(check: Callable[[Value], object]) -> Callable[[Value], list[object]]:
    def each(value: Value) -> list[object]:
        if type(value) is not list or len(value) > _MAX_ITEMS:
            raise Malformed(f"expected a list of at most {_MAX_ITEMS}")
        return [check(item) for item in value]

    return each


def _document(value: Value) -> list[object]:
    match value:
        case [str(kind), bytes(data)]:
            return [kind, data]
    raise Malformed("expected a kind and a document")


_BLOBS: Final = _list_of(octets(1 << 18))
MESSAGES: Final[Vocabulary[Message]] = Vocabulary(
    {
        0: (Refusal, {"check": text(128, 0), "reason": text(_MAX_TEXT, 0)}),
        1: (ChainRequest, {}),
        2: (CertificateChain, {"certificates": octets(1 << 16), **_VERSION}),
        3: (LaunchStart, {"policy": octets(4, 4), "certificate": octets(2084, 2084), "session": octets(128, 128)}),
        4: (Measurement, {"measure": octets(48, 48), **_VERSION}),
        5: (Secret, {"header": octets(52, 52), "payload": octets(1 << 14, 16)}),
        6: (Printed, {"output": octets(4096, 0), "interpreted": truth}),
        16: (EnclaveRequest, {
            "image": octets(1 << 19), "argv": _list_of(text(_MAX_TEXT)), "nonce": octets(NONCE_BYTES, NONCE_BYTES),
        }),
        17: (Quote, {
            "quote": octets(1 << 16), "key": octets(KEY_BYTES, KEY_BYTES), "certificates": _BLOBS, "crls": _BLOBS,
            "documents": _list_of(_document),
        }),
        18: (Sealed, {"data": octets(4096)}),
    },
    max_bytes=MAX_MESSAGE_BYTES,
)  # fmt: skip
"""Every message by its tag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a side ends: the last message, if it has one to send, and the tenant's result."""

    message: Message | None = None
    total: int | None = None
    interpreted: bool = False
    """Whether Python played the processor."""


Dialogue = Generator[Message | None, Message, End]
_M = TypeVar("_M", bound=Message)


class CheckFailed(EnarxError):
    """Something refused to go on; ``check`` names what was checked."""

    def __init__(self, check: str, reason: str, *, hint: str = "") -> None:
        super().__init__(f"{check}: {reason}", hint=hint)
        self.check = check


def expect(kind: type[_M], message: Message) -> _M:
    """Take the message that must come now. Raises ``ProtocolViolation``."""
    if not isinstance(message, kind):
        raise ProtocolViolation(f"expected {kind.__name__}, found {type(message).__name__}")
    return message
