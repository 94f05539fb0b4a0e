"""One side of a demo as a process of its own: ``python -m enarx.cli._demo_party``, told what to do on standard input.

It speaks with the other side over one descriptor, and tells the command over another: lines of the dialogue, and how
it ended, each one JSON document on a line.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from enarx.api.demo import MAX_MESSAGE_BYTES, MESSAGES, Dialogue, End, Line, Message, Refusal, Say, Side
from enarx.attest import EvidenceRejected
from enarx.cli._exit import ExitCode
from enarx.cli._main import exit_code_of
from enarx.tcb.errors import EnarxError, Unavailable
from enarx.tcb.wire import FrameDecoder, frame

TIMEOUT_S: Final = 90.0
"""How long one side waits for the other, which may wait for a busy platform."""
_MAX_TEXT: Final = 1500
"""Lines of both sides go through one pipe, which takes up to 4096 bytes at once."""


class _PeerRefused(Exception):
    """The other side ended the exchange, and has told why."""


def main() -> int:
    """Play one side."""
    order = json.load(sys.stdin)
    side = Side(order["side"])
    events = int(order["events"])

    def say(line: Line) -> None:
        _write(events, {"side": line.speaker.value, "text": line.text[:_MAX_TEXT], "to_peer": line.to_peer})

    with socket.socket(fileno=int(order["socket"])) as sock:
        sock.settimeout(TIMEOUT_S)
        stream = _Stream(sock, side)
        try:
            with _PARTIES[order["tee"], side](order, say) as dialogue:
                end = _converse(stream, dialogue)
        except _PeerRefused:
            return ExitCode.REFUSED
        except Exception as error:
            failure = _failure(error)
            if failure["check"]:
                say(Line(speaker=side, text=f"Refused: {failure['check']}", to_peer=True))
            stream.refuse(failure)
            _write(events, {"side": side.value, "failure": failure})
            return int(failure["exit_code"])
    if end.total is not None:
        _write(events, {"side": side.value, "sum": end.total, "interpreted": end.interpreted})
    return ExitCode.DONE


def _converse(stream: _Stream, dialogue: Dialogue) -> End:
    try:
        sent = next(dialogue)
        while True:
            if sent is not None:
                stream.send(sent)
            sent = dialogue.send(stream.receive())
    except StopIteration as stop:
        end: End = stop.value
    if end.message is not None:
        stream.send(end.message)
    return end


class _Stream:
    """Messages over a socket. Raises ``Unavailable``, ``Malformed``."""

    def __init__(self, sock: socket.socket, side: Side) -> None:
        self._sock = sock
        self._peer = "host" if side is Side.TENANT else "tenant"
        self._decoder = FrameDecoder(max_bytes=MAX_MESSAGE_BYTES)

    def send(self, message: Message) -> None:
        try:
            self._sock.sendall(frame(MESSAGES.encode(message)))
        except OSError:
            raise Unavailable(f"the {self._peer} is gone") from None

    def receive(self) -> Message:
        while True:
            for body in self._decoder.frames():
                message = MESSAGES.decode(body)
                if isinstance(message, Refusal):
                    raise _PeerRefused
                return message
            try:
                data = self._sock.recv(1 << 16)
            except TimeoutError:
                raise Unavailable(f"the {self._peer} does not answer") from None
            except OSError:
                data = b""
            if not data:
                raise Unavailable(f"the {self._peer} is gone")
            self._decoder.feed(data)

    def refuse(self, failure: dict[str, Any]) -> None:
        """Tell the other side, if it is still there."""
        printable = "".join(char for char in str(failure["message"]) if char.isprintable())
        try:
            self.send(Refusal(check=str(failure["check"]), reason=printable[:_MAX_TEXT]))
        except EnarxError:
            return


def _failure(error: Exception) -> dict[str, Any]:
    if not isinstance(error, EnarxError):
        message = f"internal error: {type(error).__name__}: {error}"
        return {"exit_code": int(ExitCode.INTERNAL), "check": "", "message": message[:_MAX_TEXT], "hint": ""}
    check = error.check.name if isinstance(error, EvidenceRejected) else getattr(error, "check", "")
    return {
        "exit_code": int(exit_code_of(error)),
        "check": str(check),
        "message": str(error)[:_MAX_TEXT],
        "hint": error.hint[: _MAX_TEXT // 2],
    }


def _write(descriptor: int, document: dict[str, object]) -> None:
    os.write(descriptor, json.dumps(document).encode() + b"\n")


@contextmanager
def _sev_tenant(order: dict[str, Any], say: Say) -> Iterator[Dialogue]:
    from enarx.tenant.demo.sev import SevTenant

    tenant = SevTenant(
        a=order["a"], b=order["b"], roots=_roots(order), say=say, random=os.urandom, now=datetime.now(UTC)
    )
    yield tenant.converse()


@contextmanager
def _sev_host(order: dict[str, Any], say: Say) -> Iterator[Dialogue]:
    from enarx.host.demo.attacks import SevAttack
    from enarx.host.demo.processor import EmulatedProcessor, HardwareProcessor, SecureProcessor, open_emulated
    from enarx.host.demo.sev import SevHost

    processor: SecureProcessor
    if order["device"]:
        processor = HardwareProcessor(order["device"], Path(order["certificates"]).read_bytes())
    else:
        processor = EmulatedProcessor(open_emulated(Path(order["platform"])))
    attack = SevAttack(order["attack"]) if order["attack"] else None
    dialogue = SevHost(processor=processor, kvm=order["kvm"], say=say, attack=attack).converse()
    try:
        yield dialogue
    finally:
        dialogue.close()
        processor.close()


@contextmanager
def _sgx_tenant(order: dict[str, Any], say: Say) -> Iterator[Dialogue]:
    from enarx.tenant.demo.sgx import SgxTenant

    tenant = SgxTenant(
        a=order["a"], b=order["b"], roots=_roots(order), say=say, random=os.urandom, now=datetime.now(UTC)
    )
    yield tenant.converse()


@contextmanager
def _sgx_host(order: dict[str, Any], say: Say) -> Iterator[Dialogue]:
    from enarx.host.demo.attacks import SgxAttack
    from enarx.host.demo.processor import open_emulated
    from enarx.host.demo.sgx import SgxHost

    backend = open_emulated(Path(order["platform"]))
    attack = SgxAttack(order["attack"]) if order["attack"] else None
    dialogue = SgxHost(backend=backend, say=say, attack=attack, random=os.urandom).converse()
    try:
        yield dialogue
    finally:
        dialogue.close()
        backend.close()


def _roots(order: dict[str, Any]) -> dict[str, bytes]:
    return {name: pem.encode() for name, pem in order["roots"].items()}


_Open = Callable[[dict[str, Any], Say], Any]
_PARTIES: Final[dict[tuple[str, Side], _Open]] = {
    ("sev", Side.TENANT): _sev_tenant,
    ("sev", Side.HOST): _sev_host,
    ("sgx", Side.TENANT): _sgx_tenant,
    ("sgx", Side.HOST): _sgx_host,
}


if __name__ == "__main__":
    sys.exit(main())
