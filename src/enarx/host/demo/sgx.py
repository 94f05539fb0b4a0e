"""The host of the SGX demo: it starts the enclave of a tenant who does not trust it, or attacks on request."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Final

from enarx.api.demo import (
    KEY_BYTES,
    Dialogue,
    EnclaveRequest,
    End,
    Line,
    Quote,
    Say,
    Sealed,
    Side,
    expect,
)
from enarx.host.demo.attacks import SgxAttack
from enarx.host.demo.processor import CommandedBackend, number
from enarx.tcb.errors import EnarxError, Malformed, Unavailable
from enarx.tcb.wire import FrameDecoder, Value, decode, encode, frame

TIMEOUT_S: Final = 60.0
_MAX_BYTES: Final = 1 << 16
_SIGNATURE_AT: Final = 436
"""Behind header, report and the length of what follows (Intel, SGX ECDSA quote library, appendix A)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxHost:
    """Who has the machine."""

    backend: CommandedBackend
    say: Say
    random: Callable[[int], bytes] = field(repr=False)
    attack: SgxAttack | None = None

    def converse(self) -> Dialogue:
        """Serve one tenant. Raises ``EnarxError``.

        1. Launch the enclave and hand over the challenge. 2. Show its quote, with what Intel says of the platform.
        3. Carry the sealed numbers in, and the sealed sum out.
        """
        request = expect(EnclaveRequest, (yield None))
        with ExitStack() as stack:
            enclave = self._enclave(request, stack)  # 1
            nonce = request.nonce
            if self.attack is SgxAttack.REPLAY:
                self._tell("ATTACK: the quote is one that answered an earlier challenge")
                nonce = self.random(len(nonce))
            match enclave.ask(nonce):
                case [bytes(quote), bytes(key)] if len(key) == KEY_BYTES:
                    sealed = expect(Sealed, (yield self._quote(quote, key)))  # 2
                case _:
                    raise Malformed("the enclave gave no quote and key")
            self._tell("Encrypted Data goes to the enclave")
            match enclave.ask(sealed.data):  # 3
                case bytes(answer):
                    self._tell(f"Encrypted Sum: {answer.hex()}", to_peer=True)
                    return End(message=Sealed(data=answer))
        raise Malformed("the enclave gave no sum")

    def _enclave(self, request: EnclaveRequest, stack: ExitStack) -> _Enclave:
        image, argv = request.image, request.argv
        if self.attack is SgxAttack.MRENCLAVE:
            self._tell("ATTACK: the enclave is another program than the tenant's")
            image, argv = _changed(image, argv)
        options: dict[str, Value] = {"image": image}
        if self.attack is SgxAttack.DEBUG:
            self._tell("ATTACK: the enclave is started for debugging, so that I can read its memory")
            options["debug"] = True
        guest = number(self.backend.command("launch", **options), "guest")
        stack.callback(self._stop, guest)
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        with theirs:
            pid = self.backend.run(guest, argv, channel=theirs.fileno())
        self._tell(f"Enclave launched: process {pid}")
        return _Enclave(ours)

    def _quote(self, quote: bytes, key: bytes) -> Quote:
        if self.attack is SgxAttack.SIGNATURE:
            self._tell("ATTACK: a bit of the quote's signature is changed")
            quote = quote[:_SIGNATURE_AT] + bytes([quote[_SIGNATURE_AT] ^ 1]) + quote[_SIGNATURE_AT + 1 :]
        if self.attack is SgxAttack.KEY_SWAP:
            self._tell("ATTACK: a key of mine passes for that of the enclave")
            key = self.random(KEY_BYTES)
        found = self.backend.endorsements()
        self._tell(f"Quote (Attestation) of {len(quote)} bytes, Key {key.hex()}", to_peer=True)
        return Quote(
            quote=quote,
            key=key,
            certificates=list(found.certificates),
            crls=list(found.crls),
            documents=[[kind, data] for kind, data in found.documents],
        )

    def _stop(self, guest: int) -> None:
        with suppress(EnarxError):
            self.backend.command("stop", guest=guest)

    def _tell(self, text: str, *, to_peer: bool = False) -> None:
        self.say(Line(speaker=Side.HOST, text=text, to_peer=to_peer))


class _Enclave:
    """The channel to an enclave that runs. Raises ``Unavailable``, ``Malformed``."""

    def __init__(self, channel: socket.socket) -> None:
        channel.settimeout(TIMEOUT_S)
        self._channel = channel
        self._messages = FrameDecoder(max_bytes=_MAX_BYTES)

    def ask(self, value: Value) -> Value:
        """Send one message and give the answer."""
        try:
            self._channel.sendall(frame(encode(value)))
            while True:
                for body in self._messages.frames():
                    return decode(body, max_bytes=_MAX_BYTES)
                data = self._channel.recv(_MAX_BYTES)
                if not data:
                    raise Unavailable("the enclave has ended without an answer")
                self._messages.feed(data)
        except OSError as error:
            reason = "does not answer" if isinstance(error, TimeoutError) else "is gone"
            raise Unavailable(f"the enclave {reason}") from None


def _changed(image: bytes, argv: list[str]) -> tuple[bytes, list[str]]:
    """Give a program that does the same and a little more, and the list that fits it."""
    other = [*argv[:-1], f"{argv[-1]}; print('mine')"]
    digest = hashlib.sha256("\0".join(other).encode()).hexdigest()
    files = image.splitlines(keepends=True)[:-1]
    return b"".join([*files, f"{digest}  argv\n".encode()]), other
