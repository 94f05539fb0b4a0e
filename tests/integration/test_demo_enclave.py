"""The enclave of the SGX demo on an emulated platform, and a host that wants more of it than a sum."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from tests.integration import demo_runs

from enarx.host.demo.processor import CommandedBackend, number, octets, open_emulated
from enarx.tcb.errors import EnarxError
from enarx.tcb.wire import FrameDecoder, Value, decode, encode, frame
from enarx.tenant.demo.enclave_image import EnclaveImage, build_image
from enarx.tenant.demo.sealing import OPERANDS, SUM, public_bytes, report_data, seal, unseal

NONCE = bytes(range(32))
REPLY = X25519PrivateKey.generate()


@pytest.fixture(scope="module")
def image() -> EnclaveImage:
    return build_image()


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandedBackend]:
    """A host that is connected to a platform with SGX."""
    home = tmp_path_factory.mktemp("sgx") / "state"
    with demo_runs.platform("sgx", home):
        opened = open_emulated(home)
        yield opened
        opened.close()


@contextmanager
def enclave(backend: CommandedBackend, image: EnclaveImage) -> Iterator[tuple[int, socket.socket]]:
    """A running enclave and the host's end of its channel."""
    guest = number(backend.command("launch", image=image.files), "guest")
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(demo_runs.TIMEOUT_S)
        with theirs:
            backend.run(guest, image.argv, channel=theirs.fileno())
        yield guest, ours
        backend.command("stop", guest=guest)


def ask(channel: socket.socket, value: Value) -> Value | None:
    """One message and the answer; nothing where the enclave ends instead."""
    channel.sendall(frame(encode(value)))
    messages = FrameDecoder(max_bytes=1 << 16)
    while data := channel.recv(1 << 16):
        messages.feed(data)
        for body in messages.frames():
            return decode(body, max_bytes=1 << 16)
    return None


def quoted(channel: socket.socket) -> tuple[bytes, bytes]:
    """The enclave's key, and what its quote is bound to."""
    match ask(channel, NONCE):
        case [bytes(quote), bytes(key)]:
            binding = report_data(NONCE, key)
            assert binding in quote
            return key, binding
    raise AssertionError("no quote")


def test_the_tenant_computes_what_the_platform_measures(
    backend: CommandedBackend, image: EnclaveImage
) -> None:
    launched = backend.command("launch", image=image.files)
    assert octets(launched, "measurement") == image.mrenclave
    backend.command("stop", guest=number(launched, "guest"))
    assert build_image() == image


def test_every_module_of_the_enclave_is_on_the_list(image: EnclaveImage) -> None:
    listed = {line[66:] for line in image.files.decode().splitlines()}
    assert {Path(name).name for name in listed} >= {"enclave.py", "sealing.py", "_rust.abi3.so", "argv"}
    assert not any("host" in Path(name).parts or name.endswith(".pyc") for name in listed)


def test_it_adds_once_for_who_has_the_key(backend: CommandedBackend, image: EnclaveImage) -> None:
    with enclave(backend, image) as (guest, channel):
        key, binding = quoted(channel)
        sealed = seal([2, 3, public_bytes(REPLY)], key=key, purpose=OPERANDS, binding=binding)
        answer = ask(channel, sealed)
        assert isinstance(answer, bytes)
        assert unseal(answer, key=REPLY, purpose=SUM, binding=binding) == 5
        assert channel.recv(1) == b""
        assert backend.command("wait", guest=guest) == {"code": 0}


@pytest.mark.parametrize("nonce", [b"", bytes(31), bytes(33), 7, [NONCE]])
def test_what_is_no_challenge_gets_no_quote(
    backend: CommandedBackend, image: EnclaveImage, nonce: Value
) -> None:
    with enclave(backend, image) as (guest, channel):
        assert ask(channel, nonce) is None
        assert backend.command("wait", guest=guest) == {"code": 1}


@pytest.mark.parametrize(
    "operands",
    [[2, 3], [2, 3, b"short"], [-1, 3, bytes(32)], [1 << 32, 0, bytes(32)], [2, "3", bytes(32)], b"", "text"],
)
def test_operands_out_of_range_get_no_answer(
    backend: CommandedBackend, image: EnclaveImage, operands: Value
) -> None:
    with enclave(backend, image) as (guest, channel):
        key, binding = quoted(channel)
        assert ask(channel, seal(operands, key=key, purpose=OPERANDS, binding=binding)) is None
        assert backend.command("wait", guest=guest) == {"code": 1}


def test_operands_of_another_quote_get_no_answer(backend: CommandedBackend, image: EnclaveImage) -> None:
    with enclave(backend, image) as (_, channel):
        key, _ = quoted(channel)
        other = report_data(bytes(32), key)
        sealed = seal([2, 3, public_bytes(REPLY)], key=key, purpose=OPERANDS, binding=other)
        assert ask(channel, sealed) is None


def test_another_command_line_does_not_start(backend: CommandedBackend, image: EnclaveImage) -> None:
    guest = number(backend.command("launch", image=image.files), "guest")
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(EnarxError, match="the command line is not what was measured"):
        backend.run(guest, [*image.argv[:-1], "print()"], channel=theirs.fileno())
    backend.command("stop", guest=guest)
