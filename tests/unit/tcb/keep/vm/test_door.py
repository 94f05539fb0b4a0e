"""Both ends of a VM keep's door, joined by a socket pair instead of a machine: a host's agent on one side,
a keep's process on the other, and everything between them real."""

from __future__ import annotations

import array
import contextlib
import os
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from enarx.host.relay import fulfil
from enarx.host.vm import _door as host_door
from enarx.host.vm._door import Door as HostDoor
from enarx.host.vm._door import interrupt
from enarx.tcb.errors import EnarxError, ProtocolViolation
from enarx.tcb.keep.vm import _door
from enarx.tcb.keep.vm._door import Door
from enarx.tcb.sallyport import mux
from enarx.tcb.sallyport.carrier import PortClosed
from enarx.tcb.sallyport.items import (
    Admit,
    Connect,
    Exited,
    Item,
    Listen,
    Opened,
    Progress,
    Ready,
    Reason,
    Refused,
    encode,
)
from enarx.tcb.sallyport.mux import HEADER, Kind
from enarx.tcb.sallyport.socket_channel import ChannelClosed, SocketChannel
from enarx.tcb.wire import frame
from enarx.tcb.workload import Ending, Outcome

TIMEOUT_S = 20.0


def let_go(door: Door) -> None:
    """Close what the end of the machine would."""
    door._carrier.close()
    os.close(door._pidfd)
    for end in (door._channel, door._door, *door._connected.values()):
        if end is not None:
            end.close()


BULK = bytes(range(256)) * (1 << 14)


class Machine:
    """A door's two ends in threads; ``keep`` is the channel of what would be the keep's process."""

    def __init__(self) -> None:
        self.port, theirs = socket.socketpair()
        agent, inner = socket.socketpair()
        keep, outer = socket.socketpair()
        for sock in (agent, keep):
            sock.settimeout(TIMEOUT_S)
        self.agent_socket = agent
        self.agent, self.keep, self.keep_socket = SocketChannel(agent), SocketChannel(keep), keep
        self.read, self.write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:  # stands for the keep's process, whose end is watched
            os.dup2(self.read, 0)
            os.closerange(1, 1 << 16)
            os.read(0, 1)
            os._exit(3)
        self.ready: list[Ready] = []
        self.raised: list[Exception] = []
        theirs.setblocking(False)
        self.guest_port = theirs
        self.host, self.guest = (
            HostDoor(self.port, inner, self.ready.append),
            Door(theirs.fileno(), outer, self.pid),
        )
        self.threads = [
            threading.Thread(target=self._run, args=(end,), daemon=True) for end in (self._host, self._guest)
        ]
        for thread in self.threads:
            thread.start()

    def _run(self, end: Any) -> None:
        try:
            end()
        except EnarxError as error:
            self.raised.append(error)

    def _host(self) -> None:
        try:
            self.host.serve()
        finally:
            if self.host.last is not None:
                self.host.say(self.host.last)
            self.host.close()

    def _guest(self) -> None:
        try:
            self.guest.serve()
        finally:
            self.guest_port.close()
            let_go(self.guest)

    def admit(self) -> tuple[socket.socket, socket.socket]:
        """Open the door; give the agent's end and the keep's."""
        outside, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with inside:
            self.agent.send(Admit(), [inside.fileno()])
        item, descriptors = self.keep.receive()
        assert item == Admit()
        door = socket.socket(fileno=descriptors[0])
        door.settimeout(TIMEOUT_S)
        return outside, door

    def end_process(self) -> None:
        """End the keep's process, and its channel with it."""
        self.keep_socket.close()
        os.close(self.write)

    def join(self) -> None:
        for thread in self.threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    interrupt(made.agent_socket)
    with contextlib.suppress(OSError):
        made.keep_socket.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(ProcessLookupError):
        os.kill(made.pid, signal.SIGKILL)
    made.join()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(made.pid, 0)
    for end in (made.agent_socket, made.keep_socket):
        end.close()
    os.close(made.read)
    with contextlib.suppress(OSError):
        os.close(made.write)


def visit(door: socket.socket) -> socket.socket:
    """Hand a new connection over the agent's door; give the tenant's end."""
    ours, theirs = socket.socketpair()
    with theirs:
        rights = array.array("i", [theirs.fileno()])
        door.sendmsg([b"t"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    ours.settimeout(TIMEOUT_S)
    return ours


def welcome(door: socket.socket) -> socket.socket:
    """Take a connection from the keep's door."""
    _, descriptors, _, _ = socket.recv_fds(door, 1, 1)
    sock = socket.socket(fileno=descriptors[0])
    sock.settimeout(TIMEOUT_S)
    return sock


def read_all(sock: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size and (part := sock.recv(1 << 16)):
        found += part
    return bytes(found)


def send_all(sock: socket.socket, data: bytes) -> threading.Thread:
    thread = threading.Thread(target=sock.sendall, args=(data,), daemon=True)
    thread.start()
    return thread


def test_a_tenants_connection_reaches_the_keep_and_carries_more_than_a_window_both_ways(
    machine: Machine,
) -> None:
    outside, inside = machine.admit()
    with outside, inside, visit(outside) as tenant, welcome(inside) as line:
        going, coming = send_all(tenant, BULK), send_all(line, BULK[::-1])
        assert read_all(tenant, len(BULK)) == BULK[::-1]
        assert read_all(line, len(BULK)) == BULK
        going.join(TIMEOUT_S)
        coming.join(TIMEOUT_S)
        tenant.shutdown(socket.SHUT_WR)
        assert line.recv(1) == b""
        line.sendall(b"still here")
        assert read_all(tenant, 10) == b"still here"
        line.close()
        assert tenant.recv(1) == b""


def test_a_tenant_that_reads_nothing_holds_up_neither_others_nor_the_channel(machine: Machine) -> None:
    outside, inside = machine.admit()
    with outside, inside, visit(outside) as lazy, welcome(inside) as stuck:
        stuck.setblocking(False)
        quiet = select.poll()
        quiet.register(stuck, select.POLLOUT)
        while quiet.poll(200):  # until nothing moves any more
            with contextlib.suppress(BlockingIOError):
                stuck.send(BULK)
        with visit(outside) as tenant, welcome(inside) as line:
            line.sendall(b"passes")
            assert read_all(tenant, 6) == b"passes"
        machine.keep.send(Progress(text="passes too"))
        assert machine.agent.receive()[0] == Progress(text="passes too")
        assert len(read_all(lazy, 1 << 18)) >= 1 << 18  # nothing was lost meanwhile


def test_a_keep_that_ends_is_heard_to_its_last_byte_before_its_last_word(machine: Machine) -> None:
    outside, inside = machine.admit()
    with outside, inside, visit(outside) as tenant:
        line = welcome(inside)
        sender = send_all(line, BULK)
        received = bytearray()
        while len(received) < len(BULK) - (1 << 18):
            received += tenant.recv(1 << 16)
        sender.join(TIMEOUT_S)
        line.close()
        machine.keep.send(Exited(outcome=None))
        machine.end_process()
        assert bytes(received) + read_all(tenant, len(BULK)) == BULK
        assert machine.agent.receive()[0] == Exited(outcome=None)
        with pytest.raises(ChannelClosed):
            machine.agent.receive()


def listening(machine: Machine) -> tuple[Opened, list[int]]:
    """Have the keep listen on a free port: the agent's answer, as it came to the keep, and what came beside it."""
    machine.keep.send(asked := Listen(request=1, address="127.0.0.1", port=0))
    assert machine.agent.receive()[0] == asked
    reply, sock = fulfil(asked)
    assert isinstance(reply, Opened)
    assert sock is not None
    with sock:
        machine.agent.send(reply, [sock.fileno()])
    item, descriptors = machine.keep.receive()
    assert item == reply
    return reply, list(descriptors)


def test_a_listener_gives_the_keep_what_the_hosts_listener_accepts(machine: Machine) -> None:
    reply, descriptors = listening(machine)
    with socket.socket(fileno=descriptors[0]) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        listener.settimeout(TIMEOUT_S)
        with socket.create_connection(("127.0.0.1", reply.port), TIMEOUT_S) as client:
            served, _ = listener.accept()
            with served:
                client.sendall(b"ping")
                assert read_all(served, 4) == b"ping"
                served.sendall(b"pong")
                assert read_all(client, 4) == b"pong"


def test_a_connection_that_was_asked_for_comes_beside_its_answer(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        machine.keep.send(asked := Connect(request=1, host="127.0.0.1", port=port))
        assert machine.agent.receive()[0] == asked
        reply, sock = fulfil(asked)
        assert sock is not None
        with sock:
            machine.agent.send(reply, [sock.fileno()])
        peer, _ = server.accept()
        item, descriptors = machine.keep.receive()
        assert item == reply
        with peer, socket.socket(fileno=descriptors[0]) as connection:
            connection.settimeout(TIMEOUT_S)
            peer.sendall(b"hello")
            assert read_all(connection, 5) == b"hello"


def test_a_refusal_passes_without_descriptors(machine: Machine) -> None:
    machine.keep.send(Listen(request=1, address="::", port=1))
    machine.agent.receive()
    machine.agent.send(refused := Refused(request=1, reason=Reason.NOT_PERMITTED, detail="no"))
    assert machine.keep.receive() == (refused, [])


def test_ready_is_told_once_and_not_passed_on(machine: Machine) -> None:
    machine.keep.send(Ready(version="1"))
    machine.keep.send(Progress(text="next"))
    assert machine.agent.receive()[0] == Progress(text="next")
    assert machine.ready == [Ready(version="1")]


@pytest.mark.parametrize(("memory", "told"), [(1, "ran out of memory"), (0, "status 3 and without a word")])
def test_the_end_of_a_keep_without_a_word_is_told_with_its_reason(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, memory: int, told: str
) -> None:
    monkeypatch.setattr(_door, "killed_for_memory", lambda: memory)
    machine.end_process()
    item, _ = machine.agent.receive()
    assert isinstance(item, Exited)
    outcome = Outcome.from_value(item.outcome)
    assert outcome.ending is Ending.KEEP_LOST
    assert told in outcome.detail


def test_a_host_that_goes_away_ends_the_door(machine: Machine) -> None:
    interrupt(machine.agent_socket)
    machine.join()
    assert [type(error) for error in machine.raised] == [ChannelClosed]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let a machine have few streams more than are kept free."""
    streams = host_door.KEPT_FREE + 2
    monkeypatch.setattr(mux, "MAX_STREAMS", streams)
    monkeypatch.setattr(host_door, "MAX_STREAMS", streams)
    return streams


def test_a_keep_that_connects_while_it_has_all_its_connections_is_refused_and_lives(
    narrow: int, machine: Machine
) -> None:
    outside, inside = machine.admit()
    with contextlib.ExitStack() as stack:
        for end in (outside, inside):
            stack.enter_context(end)
        pairs = [(visit(outside), welcome(inside)) for _ in range(narrow)]
        for pair in pairs:
            stack.enter_context(pair[0])
            stack.enter_context(pair[1])
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        machine.keep.send(asked := Connect(request=1, host="127.0.0.1", port=server.getsockname()[1]))
        assert machine.agent.receive()[0] == asked
        reply, sock = fulfil(asked)
        assert sock is not None
        with sock:
            machine.agent.send(reply, [sock.fileno()])
        item, descriptors = machine.keep.receive()
        assert isinstance(item, Refused)
        assert (item.request, item.reason, descriptors) == (1, Reason.LIMIT, [])
        for tenant, line in pairs:
            line.sendall(b"lives")
            assert read_all(tenant, 5) == b"lives"


def test_a_crowd_on_the_network_leaves_room_for_the_tenant(narrow: int, machine: Machine) -> None:
    outside, inside = machine.admit()
    reply, descriptors = listening(machine)
    with contextlib.ExitStack() as stack:
        listener = socket.socket(fileno=descriptors[0])
        listener.settimeout(TIMEOUT_S)
        for end in (outside, inside, listener):
            stack.enter_context(end)
        for _ in range(narrow + 1):
            stack.enter_context(socket.create_connection(("127.0.0.1", reply.port), TIMEOUT_S))
        served = [stack.enter_context(listener.accept()[0]) for _ in range(narrow - host_door.KEPT_FREE)]
        with visit(outside) as tenant, welcome(inside) as line:
            line.sendall(b"passes")
            assert read_all(tenant, 6) == b"passes"
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()
        assert len(served) == 2


def test_a_host_without_descriptors_does_not_spin_and_accepts_later(machine: Machine) -> None:
    reply, descriptors = listening(machine)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(fileno=descriptors[0]) as listener, socket.socket() as client:
        listener.settimeout(TIMEOUT_S)
        client.settimeout(TIMEOUT_S)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            client.connect(("127.0.0.1", reply.port))
            before = time.process_time()
            time.sleep(0.5)  # for so long somebody waits whom nobody can accept
            used = time.process_time() - before
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert used < 0.2
        with listener.accept()[0] as served:
            client.sendall(b"ping")
            assert read_all(served, 4) == b"ping"


def test_descriptors_that_a_keep_sends_beside_items_are_not_kept(machine: Machine) -> None:
    with contextlib.ExitStack() as stack:
        end, other = (stack.enter_context(it) for it in socket.socketpair())
        machine.keep.send(Progress(text="with one"), [other.fileno()])
        other.close()
        item, _ = machine.agent.receive()
        assert item == Progress(text="with one")
        end.settimeout(TIMEOUT_S)
        assert end.recv(1) == b""  # the first process holds none of it


class HalfMachine:
    """One end of a door, served in a thread against whatever a test writes."""

    def __init__(self, *, host: bool) -> None:
        self.raw, port = socket.socketpair()
        self.raw.settimeout(TIMEOUT_S)
        self.mine, inner = socket.socketpair()
        self.error: EnarxError | None = None
        self.port = port
        if host:
            door: Any = HostDoor(port, inner, lambda ready: None)
        else:
            port.setblocking(False)
            door = Door(port.fileno(), inner, os.getpid())
        self.thread = threading.Thread(target=self._serve, args=(door,), daemon=True)
        self.thread.start()

    def _serve(self, door: Any) -> None:
        try:
            door.serve()
        except EnarxError as error:
            self.error = error
        if isinstance(door, Door):
            let_go(door)
        else:
            door.close()

    def refuses(self, said: bytes) -> EnarxError:
        """Give the error with which the end answers."""
        self.raw.sendall(said)
        self.thread.join(TIMEOUT_S)
        assert self.error is not None
        self.raw.close()
        self.mine.close()
        self.port.close()
        return self.error


def control(item: Item) -> bytes:
    body = frame(encode(item))
    return HEADER.pack(0, Kind.DATA, 0, 0, len(body)) + body


def test_a_hostile_host_is_refused_by_the_keep() -> None:
    for said in (
        b"\xff" * 12,
        control(Ready(version="1")),
        control(Admit()) + control(Admit()),
        control(Opened(request=1, port=1)),
        HEADER.pack(0, Kind.DATA, 0, 0, 4) + b"\xff\xff\xff\xff",
        HEADER.pack(0, Kind.DATA, 0, 0, 5) + b"\0\0\0\1\xff",
    ):
        assert not isinstance(HalfMachine(host=False).refuses(said), PortClosed | ChannelClosed)


def test_a_hostile_keep_is_refused_by_the_host() -> None:
    opened = HEADER.pack(1, Kind.OPEN, 0, 0, 4) + bytes(4)
    for said in (b"\xff" * 12, opened, HEADER.pack(0, Kind.DATA, 0, 0, 5) + b"\0\0\0\1\xff"):
        assert not isinstance(HalfMachine(host=True).refuses(said), PortClosed | ChannelClosed)
    after_the_end = control(Exited(outcome=None)) + control(Progress(text="more"))
    assert isinstance(HalfMachine(host=True).refuses(after_the_end), ProtocolViolation)


def test_a_channel_that_stays_open_after_the_process_has_ended_delays_and_blocks_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_door, "FAREWELL_S", 0.1)
    os.kill(machine.pid, signal.SIGKILL)
    item, _ = machine.agent.receive()
    assert isinstance(item, Exited)
    assert "killed by SIGKILL" in Outcome.from_value(item.outcome).detail
