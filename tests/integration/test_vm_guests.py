"""The guest programs in a VM keep: the same module, configuration, input and peers as in a process keep, and so the
same output, the same ending, and the same bytes on the network.

A machine runs one workload and takes seconds to boot, so the programs of ``tests/guests`` share two machines
(``guest_sequence``), and only what ends a workload has a machine for itself. Both kinds of keep are deployed to as by
any tenant: an agent, an emulated SNP platform, evidence that is judged.

What is not run in machines, and why: ``args`` and ``exit`` with every code (they depend on nothing but the delivery,
of which the sequence has arguments, and an exit code that is not 0); modules that are malformed or cannot be linked
(they are refused before anything of the machine is used); the key-value store, rot13, wordfreq and sealed-vote (the
same calls as the programs that do run); ``:sync`` directories, sealed code and components (no attested keep has them).
"""

from __future__ import annotations

import io
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.integration.agent_process import Process, machine
from tests.integration.conftest import free_port
from tests.integration.guest_sequence import build_sequence, sequence
from tests.integration.test_vm_keep import expected, patient_connection
from tests.integration.vm_keep import keep_image

from enarx.attest import Tee
from enarx.tcb.keep.tls import self_signed
from enarx.tcb.record import replace
from enarx.tcb.workload import Directory, Ending, Entry, EntryKind, Limits, Secret, Tree
from enarx.tenant.agent_calls import HostAddress
from enarx.tenant.agent_client import AgentClient
from enarx.tenant.deployment import Result, deploy, release_image
from enarx.tenant.image import build_image, reference_measurement
from enarx.tenant.package import Package
from enarx.tenant.verification import Trust

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("vm-guests"), pytest.mark.timeout(300)]

WAIT_S: Final = 60.0
MIB: Final = 1 << 20
MANY_BYTES: Final = bytes(range(256)) * 8192
STREAMS: Final = "".join(f'[[files]]\nkind = "{kind}"\n' for kind in ("stdin", "stdout", "stderr"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """Two agents of one machine, and what a tenant accepts of them."""

    process: HostAddress
    machine: HostAddress
    trust: Trust


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """One emulated SNP platform; one agent starts process keeps there, the other VM keeps."""
    folder = tmp_path_factory.mktemp("hosts")
    build_image(folder / "keep.tar")
    image = keep_image()
    with machine(folder / "state", folder / "keep.tar") as made:
        allowed = ("--allow-listen", "any", "--allow-connect", "any")
        process = made.agent(*allowed)
        with AgentClient(address(process)) as client:
            root = client.platform("snp").roots[0]
        accepted = [reference_measurement(release_image(), Tee.SNP).hex(), expected(image).hex()]
        policy = (
            f'version = 1\nname = "test"\n[snp]\nmeasurement = ["{accepted[0]}", "{accepted[1]}"]\n'
            'vendor_root = "any"\n'
        )
        yield Hosts(
            process=address(process),
            machine=address(made.agent(*allowed, image=image.kernel.parent)),
            trust=Trust(policy_text=policy, roots={"emulated": root}),
        )


def address(agent: Process) -> HostAddress:
    assert "url" in agent.first, agent.first
    return HostAddress.parse(agent.first["url"])


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """All guest programs as one."""
    return build_sequence(tmp_path_factory.mktemp("sequence")).read_bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One workload, and how it ends."""

    arguments: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    threads: bool = False
    stdin: bytes = b""
    ending: Ending
    code: int = 0


ENDS: Final = {
    "recurse": Case(ending=Ending.STACK_OVERFLOW),
    "loop": Case(limits=Limits(time_ms=2000), ending=Ending.TIME_LIMIT),
    "spew": Case(limits=Limits(output_bytes=MIB), ending=Ending.OUTPUT_LIMIT),
    "threads": Case(threads=True, ending=Ending.EXITED),
    "thread_trap": Case(threads=True, ending=Ending.TRAPPED),
}


def same(one: Result, other: Result) -> None:
    """Both keeps gave the same; how much memory of the machine it took may differ."""
    assert (one.stdout, one.stderr) == (other.stdout, other.stderr)
    assert replace(one.outcome, memory_bytes=0) == replace(other.outcome, memory_bytes=0)


@pytest.mark.parametrize("name", ENDS)
def test_a_workload_ends_as_in_a_process(name: str, hosts: Hosts, guest: Callable[[str], Path]) -> None:
    case = ENDS[name]
    package = Package(name=name, module=guest(name).read_bytes())
    one, other = (
        deploy(package, at, trust=hosts.trust, limits=case.limits, threads=case.threads)
        for at in (hosts.process, hosts.machine)
    )
    assert (one.outcome.ending, one.outcome.code) == (case.ending, case.code)
    same(one, other)


def test_files_streams_and_exit_code_are_those_of_a_process(hosts: Hosts, programs: bytes) -> None:
    """Input and output of several megabytes pass the door both ways, and whoever is slow holds up the other side."""
    parts = (
        *("env A PATH FD_COUNT FD_NAMES \u00fc\u20ac", "prestat", "dirs", "symlinks", "times", "poll"),
        *(
            "rights",
            "random",
            "pointers",
            "confusion",
            "escapes",
            "manyfiles",
            "largebuf 8",
            "memory",
            "echo",
        ),
        *("renumber", "exit 31"),
    )
    outputs = io.BytesIO(), io.BytesIO()
    one, other = (
        deploy(
            Package(name="sequence", module=programs),
            at,
            trust=hosts.trust,
            arguments=sequence(*parts),
            environment={"A": "b"},
            stdin=MANY_BYTES,
            stdout=output,
        )
        for at, output in zip((hosts.process, hosts.machine), outputs, strict=True)
    )
    assert (one.outcome.ending, one.outcome.code) == (Ending.EXITED, 31), (one.outcome, one.stderr)
    written = outputs[0].getvalue()
    assert written.count(b"== ") == len(parts) - 1  # renumber gives away standard output
    assert len(written) > 10 * MIB
    assert sha256(written).digest() == sha256(outputs[1].getvalue()).digest()
    same(one, other)


def test_a_connection_that_is_not_made_ends_it_as_in_a_process(hosts: Hosts, programs: bytes) -> None:
    entry = (
        f'[[files]]\nkind = "connect"\nprot = "tcp"\nhost = "127.0.0.1"\nport = {free_port()}\nname = "x"\n'
    )
    package = Package(name="refused", module=programs, config=f"{STREAMS}{entry}".encode())
    one, other = (deploy(package, at, trust=hosts.trust) for at in (hosts.process, hosts.machine))
    assert one.outcome.ending is Ending.UNAVAILABLE
    same(one, other)


# Peers on the network.


class Peers:
    """Who the workload talks to, in the order of its parts: it connects twice, then it serves three listeners."""

    def __init__(self, folder: Path) -> None:
        credential = self_signed("localhost", now=datetime.now(UTC))
        root = credential.chain[0].public_bytes(Encoding.PEM)
        self.roots = folder / "roots.pem"
        self.roots.write_bytes(root)
        file = folder / "server.pem"
        file.write_bytes(
            root + credential.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(file)
        self._servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self._ports = [free_port() for _ in range(3)]
        self.heard: list[bytes] = []
        """What came back from the workload."""

    def config(self) -> bytes:
        """Give the workload's Enarx.toml."""
        plain, secured = (server.getsockname()[1] for server in self._servers)
        listeners = zip((("in", "tcp"), ("tls", "tls"), ("echo", "tls")), self._ports, strict=True)
        entries = (
            *(
                f'kind = "listen"\nprot = "{prot}"\nname = "{name}"\naddr = "127.0.0.1"\nport = {port}'
                for (name, prot), port in listeners
            ),
            f'kind = "connect"\nprot = "tcp"\nhost = "127.0.0.1"\nport = {plain}\nname = "out"',
            f'kind = "connect"\nprot = "tls"\nhost = "localhost"\nport = {secured}\nname = "secured"',
        )
        return (STREAMS + "".join(f"[[files]]\n{entry}\n" for entry in entries)).encode()

    parts: Final = (
        *("connect out", "connect secured"),
        *(
            "socket block nonblock poll close flags echo",
            "socket on:tls block nonblock poll close flags echo",
        ),
        "tls-echo 21",
    )

    def talk(self) -> None:
        """Be everybody, one after another."""
        accepted = []
        for server in self._servers:
            with server:
                accepted.append(server.accept()[0])
        with accepted[0] as plain, self._context.wrap_socket(accepted[1], server_side=True) as secured:
            for peer in (plain, secured):
                peer.settimeout(WAIT_S)
                for line in (b"test\n", b"and again\n", b"and at last\n"):
                    peer.sendall(line)
                    self._hear(peer, len(line))
        for port, prot in zip(self._ports[:2], ("tcp", "tls"), strict=True):
            for mode in ("block", "nonblock", "poll", "close", "flags", "echo"):
                with self._client(port, prot) as peer:
                    self._use(peer, mode)
        self._crowd(20)

    def _client(self, port: int, prot: str) -> socket.socket:
        plain = patient_connection(port)
        if prot == "tcp":
            return plain
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(plain)

    def _use(self, peer: socket.socket, mode: str) -> None:
        if mode in ("block", "nonblock", "poll"):
            for line in (b"one\n", b"two " * 50 + b"\n", b"three\n"):
                peer.sendall(line)
                self._hear(peer, len(line))
        elif mode == "flags":
            peer.sendall(b"abcd")
            peer.sendall(b"efghij")
            self._hear(peer, 5)
        elif mode == "echo":
            for at in range(0, 2 * MIB, 65536):
                peer.sendall(MANY_BYTES[at : at + 65536])
                self._hear(peer, 65536)
        if mode in ("flags", "echo"):
            self._finish(peer)
        self.heard.append(peer.recv(1))

    def _crowd(self, count: int) -> None:
        """Connect many times at once; the first is idle, and one more does not even shake hands."""
        text = os.urandom(30_000)
        silent = patient_connection(self._ports[2])
        peers = [self._client(self._ports[2], "tls") for _ in range(count + 1)]

        def use(peer: socket.socket) -> bool:
            peer.sendall(text)
            return exactly(peer, len(text)) == text

        with ThreadPoolExecutor(4) as pool:
            self.heard += [bytes([right]) for right in pool.map(use, peers[1:])]
        for peer in (silent, *peers):
            peer.close()

    def _hear(self, peer: socket.socket, size: int) -> None:
        self.heard.append(exactly(peer, size))

    @staticmethod
    def _finish(peer: socket.socket) -> None:
        """Tell that no more comes; TLS has a message for it, and plain sockets a flag."""
        if isinstance(peer, ssl.SSLSocket):
            peer.unwrap()
        else:
            peer.shutdown(socket.SHUT_WR)


def exactly(peer: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = peer.recv(size - len(data))
        assert more, f"the stream ended after {len(data)} of {size} bytes"
        data += more
    return bytes(data)


def networked(hosts: Hosts, at: HostAddress, programs: bytes, folder: Path) -> tuple[Result, list[bytes]]:
    """Deploy the programs that have peers, files that were delivered, secrets, and limits."""
    peers = Peers(folder)
    files = (
        Entry(path="in.txt", kind=EntryKind.FILE, data=b"delivered\n"),
        Entry(path="sub", kind=EntryKind.DIRECTORY),
        Entry(path="sub/deep.bin", kind=EntryKind.FILE, data=b"\0\1\2\xff"),
    )
    package = Package(
        name="network",
        module=programs,
        config=peers.config(),
        directories=(Directory(name="/data", tree=Tree(entries=files)),),
    )
    parts = ("delivered", "secrets", *peers.parts, "poll_stdin", "prestat", "files")
    hogs = ("hog files", "hog storage", "hog descriptors", "hog memory")
    with ThreadPoolExecutor(1) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(peers.roots))
        talk = pool.submit(peers.talk)
        result = deploy(
            package,
            at,
            trust=hosts.trust,
            arguments=sequence(*parts, *hogs),
            secrets=[
                Secret(name="token", value=b"a secret"),
                Secret(name="SHOWN", value=b"too", environment=True),
            ],
            limits=Limits(memory_bytes=64 * MIB, files=300, storage_bytes=8 * MIB, descriptors=100),
            stdin=b"ten bytes\n",
        )
        assert (result.outcome.ending, result.outcome.code) == (Ending.EXITED, 0), (
            result.outcome,
            result.stderr,
        )
        talk.result(WAIT_S)
    assert result.stdout.count(b"== ") == len(parts) + len(hogs)
    return result, peers.heard


def test_network_files_secrets_and_limits_are_those_of_a_process(
    hosts: Hosts, programs: bytes, tmp_path: Path
) -> None:
    """Listeners and connections with and without TLS; what comes back on each; twenty peers at once."""
    (one, heard), (other, heard_too) = (
        networked(hosts, at, programs, tmp_path) for at in (hosts.process, hosts.machine)
    )
    same(one, other)
    assert heard == heard_too
    assert heard[-20:] == [b"\1"] * 20
