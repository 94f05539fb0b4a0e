"""What a quote asks of a TPM 2.0: three commands as bytes, and their answers, read as if an attacker wrote every byte.

Source: TPM 2.0 Library 1.59, part 3: TPM2_CreatePrimary (24.1), TPM2_Quote (18.4), TPM2_PCR_Read (22.4); part 2 for the
structures. Everything is big endian.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Final

from enarx.tcb.errors import Malformed, Unavailable
from enarx.tcb.wire import Reader

PCRS: Final = (0, 1, 2, 3, 4, 5, 6, 7, 9)
"""What is quoted, of the bank of SHA-256: all that firmware and the kernel's start put somewhere."""
MAX_ANSWER_BYTES: Final = 4096
ATTEMPTS: Final = 5
_HEADER_BYTES: Final = 10
_PCR_OCTETS: Final = 3
_SESSIONS, _NO_SESSIONS = 0x8002, 0x8001
_LATER: Final = frozenset({0x908, 0x90A, 0x922})
"""TPM_RC_YIELDED, TPM_RC_TESTING, TPM_RC_RETRY: the same command may succeed when it is sent again."""
_SHA256: Final = b"\x00\x0b"
_ECDSA: Final = b"\x00\x18"
_ENDORSEMENT: Final = bytes.fromhex("4000000b")
_PASSWORD: Final = bytes.fromhex("00000009 40000009 0000 00 0000")
"""An authorization area: the password session with no password."""
_PASSED: Final = bytes.fromhex("0000 01 0000")
"""What a TPM answers to it."""
_ATTRIBUTES: Final = bytes.fromhex("00050472")
"""Of this TPM and parent for ever, made by it, usable without password or lock-out, restricted, for signing."""
_PUBLIC: Final = (
    b"\x00\x23" + _SHA256 + _ATTRIBUTES + bytes.fromhex("0000 0010") + _ECDSA + _SHA256 + b"\0\3\0\x10"
)
"""TPMT_PUBLIC of the attestation key up to its point: ECC, no policy, no symmetric cipher, P-256, no KDF."""


class Command(IntEnum):
    """TPM_CC of all commands that are ever sent."""

    CREATE_PRIMARY = 0x131
    QUOTE = 0x158
    PCR_READ = 0x17E


def code_of(command: bytes) -> Command:
    """Give the code of a command that may be sent. Raises ``Malformed`` for all others."""
    if len(command) < _HEADER_BYTES or int.from_bytes(command[2:6], "big") != len(command):
        raise Malformed("tpm command: its length is not the one that it says")
    try:
        return Command(int.from_bytes(command[6:10], "big"))
    except ValueError:
        raise Malformed("tpm command: expected one that a quote needs") from None


def ask(exchange: Callable[[bytes], bytes], command: bytes) -> bytes:
    """Have the answer to ``command``, which is sent again a few times if the TPM says so. Raises ``Unavailable``."""
    for _ in range(ATTEMPTS):
        answer = exchange(command)
        if int.from_bytes(answer[6:10], "big") not in _LATER:
            return answer
    raise Unavailable(f"the TPM does not answer {code_of(command).name} in {ATTEMPTS} attempts")


def create_primary() -> bytes:
    """Make the attestation key in the endorsement hierarchy, or rather derive it: it is always the same."""
    parameters = _sized(bytes(4)) + _sized(_PUBLIC + bytes(4)) + bytes(6)
    return _command(Command.CREATE_PRIMARY, _ENDORSEMENT + _PASSWORD + parameters)


def read_primary(answer: bytes) -> tuple[int, bytes]:
    """Give the key's handle and its point, 65 bytes (SEC 1, 2.3.3). Raises ``Malformed``, ``Unavailable``."""
    handle, at = _signed_answer(answer, Command.CREATE_PRIMARY, handle=True)
    public = Reader(_block(at, "public area"), name="tpm public area")
    if public.take(len(_PUBLIC), "head") != _PUBLIC:
        raise Malformed("tpm public area: it is not what was asked for")
    point = b"\x04" + _point(public)
    for name, head in (("creation data", 0), ("creation hash", 0), ("creation ticket", 6), ("name", 0)):
        at.take(head, f"{name} head")
        _block(at, name)
    at.end()
    return handle, point


def quote(handle: int, qualifying: bytes) -> bytes:
    """Quote ``PCRS`` over at most 64 bytes, by the scheme of the key."""
    parameters = _sized(qualifying) + b"\x00\x10" + _selection(PCRS)
    return _command(Command.QUOTE, handle.to_bytes(4, "big") + _PASSWORD + parameters)


def read_quote(answer: bytes) -> tuple[bytes, bytes]:
    """Give TPMS_ATTEST and TPMT_SIGNATURE; whoever verifies reads them. Raises ``Malformed``, ``Unavailable``."""
    _, at = _signed_answer(answer, Command.QUOTE, handle=False)
    attest = _block(at, "quote")
    signature = at.rest()
    numbers = Reader(signature, name="tpm signature")
    if numbers.take(4, "scheme") != _ECDSA + _SHA256:
        raise Malformed("tpm signature: expected ECDSA with SHA-256")
    _point(numbers)
    return attest, signature


def pcr_read(indices: Iterable[int]) -> bytes:
    """Read registers; a TPM gives eight of them at most."""
    return _command(Command.PCR_READ, _selection(indices))


def read_pcr_values(answer: bytes) -> dict[int, bytes]:
    """Give registers by index. Raises ``Malformed``, ``Unavailable``."""
    at = _answer(answer, Command.PCR_READ, _NO_SESSIONS)
    at.take(4, "update counter")
    if at.take(7, "selection head") != _selection(())[:7]:
        raise Malformed("tpm registers: expected those of the bank of SHA-256 alone")
    bits = int.from_bytes(at.take(_PCR_OCTETS, "selection"), "little")
    indices = [index for index in range(8 * _PCR_OCTETS) if bits >> index & 1]
    if at.number(4, "number of registers", order="big") != len(indices):
        raise Malformed("tpm registers: not as many as are selected")
    values = {index: _block(at, f"register {index}") for index in indices}
    at.end()
    if any(len(value) != 32 for value in values.values()):
        raise Malformed("tpm registers: expected 32 bytes of each")
    return values


def read_registers(exchange: Callable[[bytes], bytes]) -> bytes:
    """Give the values of ``PCRS``, one behind the other. Raises ``Malformed``, ``Unavailable``."""
    values: dict[int, bytes] = {}
    while left := [index for index in PCRS if index not in values]:
        found = read_pcr_values(ask(exchange, pcr_read(left)))
        if not found or not set(found) <= set(left):
            raise Malformed("tpm registers: expected some of those that were asked for")
        values |= found
    return b"".join(values[index] for index in PCRS)


def _command(code: Command, rest: bytes) -> bytes:
    tag = _NO_SESSIONS if code is Command.PCR_READ else _SESSIONS
    size = (_HEADER_BYTES + len(rest)).to_bytes(4, "big")
    return tag.to_bytes(2, "big") + size + code.to_bytes(4, "big") + rest


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _selection(indices: Iterable[int]) -> bytes:
    """TPML_PCR_SELECTION with one bank."""
    bits = sum(1 << index for index in indices)
    return b"\0\0\0\1" + _SHA256 + bytes([_PCR_OCTETS]) + bits.to_bytes(_PCR_OCTETS, "little")


def _answer(answer: bytes, to: Command, tag: int) -> Reader:
    """Read the head of an answer. Raises ``Unavailable`` when the TPM refused."""
    at = Reader(answer, name="tpm answer")
    found, size, code = (at.number(it, "head", order="big") for it in (2, 4, 4))
    if size != len(answer):
        raise Malformed(f"tpm answer: {len(answer)} bytes, it says {size}")
    if code:
        raise Unavailable(f"the TPM refuses {to.name} with {code:#x}")
    if found != tag:
        raise Malformed(f"tpm answer: tag is {found:#x}, expected {tag:#x}")
    return at


def _signed_answer(answer: bytes, to: Command, *, handle: bool) -> tuple[int, Reader]:
    """Give handle and parameters of an answer with an authorization area behind them."""
    at = _answer(answer, to, _SESSIONS)
    found = at.number(4, "handle", order="big") if handle else 0
    parameters = at.block(4, "parameters", order="big")
    if at.rest() != _PASSED:
        raise Malformed("tpm answer: its authorization area is not that of a password")
    return found, Reader(parameters, name="tpm answer")


def _block(at: Reader, field: str) -> bytes:
    return at.block(2, field, order="big")


def _point(at: Reader) -> bytes:
    """Read the last two numbers, in 32 bytes each; a TPM may leave out zeros in front."""
    numbers = [_block(at, field) for field in ("first number", "second number")]
    at.end()
    if not all(0 < len(number) <= 32 for number in numbers):
        raise Malformed("tpm answer: a number of P-256 has not 1 to 32 bytes")
    return b"".join(number.rjust(32, b"\0") for number in numbers)
