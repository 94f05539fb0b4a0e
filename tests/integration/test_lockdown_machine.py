"""The processes of a VM keep that live beside the keep: what they need works, and what an attacker wants does not.

In a machine nothing isolates them: its files, devices and processes are all around.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from tests.integration.caged import DONE, FREE, Cage, syscall
from tests.integration.test_lockdown import ATTACKS, REFUSED, Scene, call, scene, uid  # noqa: F401 (fixtures)

from enarx.tcb.keep.lockdown import Profile, Result, confine
from enarx.tcb.keep.lockdown._syscalls import NUMBERS
from enarx.tcb.keep.vm._machine import killed_for_memory
from enarx.tcb.keep.vm._tree_server import DirectoryTree, serve_tree
from enarx.tcb.wire import encode, frame

ISOLATED: Final = os.geteuid() != 0
"""Who is not root has to be it in a namespace to begin as the first process of a machine does."""
POWER_OFF: Final = 0x4321_FEDC
CAD_OFF: Final = 0
MAGIC: Final = (0xFEE1_DEAD, 0x2812_1969)
NO_ATTACKS: Final = {
    ("reopen_an_inherited_descriptor_through_proc", Profile.TREE),  # its own; other files are out of reach
    ("connect_to_an_abstract_socket", Profile.CARRIER),  # of nobody; see the next test
}


def beside(profile: Profile, *keeps: int) -> Cage:
    """A process of a machine."""
    return Cage(profile=profile, isolated=ISOLATED, sealed=False, keeps=keeps)


@pytest.mark.parametrize("profile", [Profile.CARRIER, Profile.TREE], ids=lambda profile: profile.value)
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("uid", [os.geteuid()], indirect=True, ids=["own"])
def test_attack_is_refused_without_namespaces(name: str, profile: Profile, scene: Scene, uid: int) -> None:  # noqa: F811
    if (name, profile) not in NO_ATTACKS and name != "read_a_descriptor_of_another_keep":
        assert beside(profile, *scene.kept).run(partial(ATTACKS[name], scene)) in REFUSED


def test_the_carrier_reaches_no_socket_that_it_has_not_made() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")
        listener.listen()
        address = listener.getsockname()

        def connect() -> None:
            socket.socket(socket.AF_UNIX).connect(address)

        assert FREE.run(connect) == DONE
        assert beside(Profile.CARRIER).run(connect) in ("EPERM", "ECONNREFUSED" if ISOLATED else "EPERM")


def test_the_carrier_does_all_that_carrying_takes() -> None:
    def carry() -> None:
        ours, theirs = socket.socketpair()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind("")
        listener.listen(8)
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.setblocking(False)
        client.connect(listener.getsockname())
        socket.send_fds(ours, [b"t"], [client.fileno(), listener.fileno()])
        _, descriptors, _, _ = socket.recv_fds(theirs, 1, 2)
        made = socket.socket(fileno=descriptors[0])
        made.send(b"x")
        made.shutdown(socket.SHUT_WR)
        os.writev(ours.fileno(), [b"a", b"b"])
        assert os.readv(theirs.fileno(), [bytearray(8)]) == 2
        poll.register(theirs, select.EPOLLIN)
        assert poll.poll(0) == []
        assert killed_for_memory() >= 0
        blocks = [bytearray(1 << 22) for _ in range(8)]  # memory comes and goes
        assert len(blocks) == 8

    with select.epoll() as poll:
        killed_for_memory()  # the descriptor stays, as in the machine
        opened = int(_descriptors_of("/proc/vmstat")[0])
        assert beside(Profile.CARRIER, poll.fileno(), opened).run(carry) == DONE


@pytest.mark.parametrize("attempt", [os.pipe, lambda: os.splice(0, 1, 1)], ids=["pipe", "splice"])
def test_the_carrier_moves_no_pages_between_pipes_and_sockets(attempt: Callable[[], object]) -> None:
    assert beside(Profile.CARRIER).run(attempt) == "EPERM"


def _descriptors_of(path: str) -> list[str]:
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.realpath(f"/proc/self/fd/{fd}") == path]


def test_the_carrier_learns_of_the_end_of_a_child_and_makes_none() -> None:
    def wait() -> object:
        ended = os.fork()
        if ended == 0:
            os._exit(7)
        watched = os.pidfd_open(ended)
        missing = [result for result in confine(Profile.CARRIER) if not result.applied]
        assert not missing, missing
        poll = select.poll()
        poll.register(watched)
        assert poll.poll(20_000)
        return os.waitstatus_to_exitcode(os.waitpid(ended, 0)[1])

    assert Cage(isolated=ISOLATED, confined=False).run(wait) == "7"
    assert beside(Profile.CARRIER).run(partial(ATTACKS["fork"], None)) == "EPERM"  # type: ignore[arg-type]


def test_the_power_switch_is_all_that_is_left_of_root() -> None:
    """The calls have wrong magic numbers: what answers EINVAL has passed the filter and the kernel's own question."""

    def switch(command: int) -> Callable[[], int]:
        return lambda: call("reboot", 1, 2, command, None)

    def capabilities() -> object:
        header, sets = struct.pack("=Ii", 0x2008_0522, 0), ctypes.create_string_buffer(24)
        syscall(125 if NUMBERS["reboot"] == 169 else 90, header, sets)
        return [f"{value:x}" for value in struct.unpack("=6I", sets.raw)]

    def left(profile: Profile) -> Callable[[], object]:
        def run() -> object:
            import enarx.tcb.keep.lockdown as lockdown

            boot = 1 << 22 if profile is Profile.CARRIER else 0
            lockdown._no_capabilities(but=boot)
            return capabilities()

        return run

    assert beside(Profile.CARRIER).run(switch(POWER_OFF)) == ("EPERM" if ISOLATED else "EINVAL")
    assert beside(Profile.CARRIER).run(switch(CAD_OFF)) == "EPERM"
    assert beside(Profile.TREE).run(switch(POWER_OFF)) == "EPERM"
    free = Cage(isolated=ISOLATED, confined=False)
    assert free.run(left(Profile.CARRIER)) == "['400000', '400000', '0', '0', '0', '0']"
    assert free.run(left(Profile.TREE)) == "['0', '0', '0', '0', '0', '0']"


def test_the_tree_is_served_and_nothing_beside_it_is_reached(tmp_path: Path) -> None:
    root, outside = tmp_path / "tsm", tmp_path / "outside"
    (root / "report").mkdir(parents=True)
    (root / "report" / "generation").write_bytes(b"1\n")
    outside.write_bytes(b"not for the keep")

    def confined(action: Callable[[DirectoryTree], object]) -> Callable[[], object]:
        def run() -> object:
            tree = DirectoryTree(str(root))
            missing: list[Result] = [
                result for result in confine(Profile.TREE, beneath=str(root)) if not result.applied
            ]
            assert not missing, missing
            return action(tree)

        return run

    def serve(tree: DirectoryTree) -> object:
        tree.make("report/keep")
        tree.write("report/generation", b"2\n")
        said = tree.read("report/generation"), tree.list("report")
        tree.remove("report/keep")
        return said

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(frame(encode(["read", "report/generation", b""])))
        ours.shutdown(socket.SHUT_WR)
        free = Cage(isolated=False, confined=False)
        assert free.run(confined(lambda tree: serve_tree(theirs.fileno(), tree))) == DONE
        assert ours.recv(100) == frame(encode([0, b"1\n"]))
    assert free.run(confined(serve)) == str((b"2\n", ["generation", "keep"]))
    assert FREE.run(lambda: outside.read_bytes()) == "b'not for the keep'"
    assert free.run(confined(lambda _: outside.read_bytes())) in ("EACCES", "EPERM")
    assert free.run(confined(lambda _: os.mkdir(tmp_path / "new"))) in ("EACCES", "EPERM")
    assert free.run(confined(lambda _: os.symlink("x", root / "link"))) == "EPERM"
