"""Real platform processes: measured before started, reports only for the guest, and nobody can stop the others."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from enarx.attest.pef import Digests, build_esm_blob
from enarx.tcb.errors import Malformed, Unavailable
from enarx.tcb.wire import Value, decode, encode, frame
from enarx_emulator.client import Platform, PortTree
from enarx_emulator.errors import Refused
from enarx_emulator.ibm.machine import BOOTARGS
from enarx_emulator.process import MAX_HOSTS, SOCKET
from enarx_emulator.program import pack_image

PROGRAM = str(Path(sys.executable).with_name("enarx-emulator"))
PYTHON = Path(sys.executable).resolve()
GUID = "736870e5-84f0-4973-92ec-06879ce3da0b"
SECRET = b"launch secret"
GUEST = """
import socket, sys
sys.path[:0] = {path!r}
from enarx_emulator.client import PortTree
channel, port = socket.socket(fileno=3), PortTree(socket.socket(fileno=4))
{body}
"""
Start = Callable[..., subprocess.Popen[str]]


@contextlib.contextmanager
def platforms() -> Iterator[Start]:
    """Starts platforms, which end with the context."""
    processes: list[subprocess.Popen[str]] = []

    def start(state: Path, kind: str = "pef", *options: str) -> subprocess.Popen[str]:
        command = [
            PROGRAM,
            "start",
            kind,
            "--state",
            str(state),
            "--beside-real-hardware",
            "--json",
            *options,
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        assert json.loads(line)["schema"] == "enarx-emulator.started/1"
        return process

    try:
        yield start
    finally:
        for process in processes:
            process.terminate()
            process.communicate(timeout=60)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts platforms, which end with the test."""
    with platforms() as start:
        yield start


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a running machine, which no test may harm."""
    state = tmp_path_factory.mktemp("platform") / "state"
    with platforms() as start:
        start(state)
        yield state


@pytest.fixture
def platform(home: Path) -> Iterator[Platform]:
    """A host that is connected to it."""
    with Platform(home) as platform:
        yield platform


def image_of(tmp_path: Path, body: str) -> tuple[bytes, list[str]]:
    """A guest in Python: its image (the list of its files) and its command line."""
    program = tmp_path / "guest.py"
    program.write_text(GUEST.format(path=sys.path, body=body))
    argv = [str(PYTHON), "-I", "-S", str(program)]
    return pack_image([PYTHON, program], argv), argv


def launch(platform: Platform, image: bytes) -> int:
    """Launch an image as its owner would."""
    key = platform.command("info")["machine_key"]
    assert isinstance(key, bytes)
    digests = Digests.of(kernel=image, bootargs=BOOTARGS)
    blob = build_esm_blob(digests, machines={"m": key}, files={GUID: SECRET}, random=os.urandom)
    handle = platform.command("launch", image=image, esm_blob=blob)["guest"]
    assert isinstance(handle, int)
    platform.command("finish", guest=handle)
    return handle


def run(platform: Platform, guest: int, argv: Sequence[str]) -> socket.socket:
    """Run a guest and give the host's end of its channel."""
    ours, theirs = socket.socketpair()
    with theirs:
        platform.run(guest, argv, channel=theirs.fileno())
    ours.settimeout(60)
    return ours


def all_of(sock: socket.socket) -> bytes:
    """What comes until the end."""
    with sock:
        return b"".join(iter(lambda: sock.recv(4096), b""))


def refusal(platform: Platform, name: str, **arguments: Value) -> Refused:
    with pytest.raises(Refused) as caught:
        platform.command(name, **arguments)
    return caught.value


def test_the_measured_guest_gets_its_secret_and_the_host_learns_how_it_ended(
    platform: Platform, tmp_path: Path
) -> None:
    image, argv = image_of(tmp_path, f"channel.sendall(port.read('coco/{GUID}')); sys.exit(7)")
    guest = launch(platform, image)
    assert all_of(run(platform, guest, argv)) == SECRET
    assert platform.command("wait", guest=guest) == {"code": 7}


def test_a_changed_file_does_not_start(platform: Platform, tmp_path: Path) -> None:
    image, argv = image_of(tmp_path, "channel.sendall(b'here')")
    guest = launch(platform, image)
    (tmp_path / "guest.py").write_text("print('another program')")
    with pytest.raises(Refused, match="not what was measured"), socket.socket() as channel:
        platform.run(guest, argv, channel=channel.fileno())
    (tmp_path / "guest.py").unlink()
    with pytest.raises(Refused, match="no such file"), socket.socket() as channel:
        platform.run(guest, argv, channel=channel.fileno())


def test_a_program_outside_of_the_image_does_not_start(platform: Platform, tmp_path: Path) -> None:
    argv = ["/bin/sh", "-c", "true"]
    guest = launch(platform, pack_image([PYTHON], argv))
    with pytest.raises(Refused, match="not among the files"), socket.socket() as channel:
        platform.run(guest, argv, channel=channel.fileno())


def test_the_host_cannot_have_a_measured_interpreter_run_what_it_likes(
    platform: Platform, tmp_path: Path
) -> None:
    image, argv = image_of(tmp_path, "pass")
    guest = launch(platform, image)
    code = "import os; os.write(3, os.read(4, 100))"
    for other in ([argv[0], "-I", "-c", code], [*argv, "more"], argv[:1]):
        with (
            pytest.raises(Refused, match="command line is not what was measured"),
            socket.socket() as channel,
        ):
            platform.run(guest, other, channel=channel.fileno())


def test_a_guest_that_is_not_verified_does_not_start(platform: Platform, tmp_path: Path) -> None:
    image, argv = image_of(tmp_path, "pass")
    handle = platform.command("launch", image=image, esm_blob=b"no blob")["guest"]
    assert isinstance(handle, int)
    with pytest.raises(Refused) as caught, socket.socket() as channel:
        platform.run(handle, argv, channel=channel.fileno())
    assert caught.value.name == "U_NOT_AVAILABLE"


def test_the_host_cannot_ask_for_what_guests_may_ask(platform: Platform, home: Path, tmp_path: Path) -> None:
    image, _ = image_of(tmp_path, "pass")
    guest = launch(platform, image)
    for command in (
        "read",
        "list",
        "write",
        "make",
        "report",
        "get_report",
        "quote",
        "secret",
        "port",
        "tree",
    ):
        assert refusal(platform, command, guest=guest, path=f"coco/{GUID}").name == "U_FUNCTION"
    body = encode(["read", f"coco/{GUID}", b""])  # what a guest would send on its port
    with raw(home) as host:
        host.sendall(frame(body))
        answer = decode(receive(host), max_bytes=1 << 16)
    assert isinstance(answer, dict)
    assert "error" in answer


def test_another_process_has_no_port(platform: Platform, home: Path, tmp_path: Path) -> None:
    """The port is one end of a pair without a name: it is nowhere to be found."""
    body = "import os; channel.sendall(' '.join(sorted(os.listdir('/proc/self/fd'))).encode())"
    image, argv = image_of(tmp_path, body)
    guest = launch(platform, image)
    descriptors = all_of(run(platform, guest, argv)).decode().split()
    assert descriptors == ["0", "1", "2", "3", "4", "5"]  # the fifth is the listing itself
    sockets = [path.name for path in (home).iterdir() if path.is_socket()]
    assert sockets == [SOCKET]


def test_a_guest_runs_once_and_ends_with_stop(platform: Platform, tmp_path: Path) -> None:
    image, argv = image_of(tmp_path, "channel.sendall(b'up'); channel.recv(1)")
    guest = launch(platform, image)
    channel = run(platform, guest, argv)
    assert channel.recv(2) == b"up"
    with pytest.raises(Refused, match="runs already"), socket.socket() as other:
        platform.run(guest, argv, channel=other.fileno())
    platform.command("stop", guest=guest)
    assert all_of(channel) == b""
    assert "does not run" in str(refusal(platform, "wait", guest=guest))


def test_run_without_a_channel_is_refused(platform: Platform, tmp_path: Path) -> None:
    image, argv = image_of(tmp_path, "pass")
    error = refusal(platform, "run", guest=launch(platform, image), argv=[*argv])
    assert "no descriptor" in str(error)


def test_a_killed_platform_comes_back_with_the_same_identity(start: Start, tmp_path: Path) -> None:
    process = start(tmp_path / "state")
    with Platform(tmp_path / "state") as platform:
        before = platform.command("info")
        process.kill()
        process.wait(timeout=60)
        with pytest.raises(Unavailable):
            platform.command("info")
    start(tmp_path / "state")
    with Platform(tmp_path / "state") as platform:
        assert platform.command("info") == before


def test_two_processes_do_not_share_a_machine(start: Start, tmp_path: Path) -> None:
    start(tmp_path / "state")
    command = [PROGRAM, "start", "pef", "--state", str(tmp_path / "state"), "--beside-real-hardware"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 4
    assert "in use by another process" in second.stderr


def test_a_directory_holds_one_machine(start: Start, tmp_path: Path) -> None:
    first = start(tmp_path / "state", "pef", "--seed", "00" * 32)
    first.terminate()
    first.wait(timeout=60)
    base = [PROGRAM, "start", "--state", str(tmp_path / "state"), "--beside-real-hardware"]
    for options, other in ((["snp"], "kind"), (["pef", "--seed", "11" * 32], "seed")):
        second = subprocess.run([*base, *options], capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1
        assert f"machine of another {other}" in second.stderr


def raw(home: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(str(home / SOCKET))
    return sock


def receive(sock: socket.socket) -> bytes:
    size = int.from_bytes(sock.recv(4, socket.MSG_WAITALL), "big")
    return sock.recv(size, socket.MSG_WAITALL)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        frame(b""),
        frame(b"\xff"),
        frame(encode([])),
        frame(encode({"command": "info"})),
        frame(encode({"command": 1, "arguments": {}})),
        frame(encode({"command": "info", "arguments": {"more": 1}})),
        frame(encode({"command": "run", "arguments": {"guest": -1}})),
        frame(encode({"command": "wait", "arguments": {"guest": 1 << 63}})),
        frame(encode({"command": "launch", "arguments": {"image": 1, "esm_blob": None}})),
        frame(b"\x9f" * 1000),
    ],
)
def test_malformed_frames_are_answered_and_harm_nobody(platform: Platform, home: Path, data: bytes) -> None:
    with raw(home) as host:
        host.sendall(data)
        answer = decode(receive(host), max_bytes=1 << 16)
        assert isinstance(answer, dict)
        assert "error" in answer
    assert platform.command("info")["kind"] == "pef"


def test_hung_and_greedy_hosts_hold_up_nobody(platform: Platform, home: Path) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_HOSTS - 2):
            host = stack.enter_context(raw(home))
            host.sendall(b"\0\0\1\0half a frame")
        greedy = stack.enter_context(raw(home))
        greedy.settimeout(0.5)
        request = frame(encode({"command": "info", "arguments": {}}))
        with pytest.raises(TimeoutError):  # it never reads, so at last nothing is taken from it any more
            greedy.sendall(request * (1 << 20))
        assert platform.command("info")["kind"] == "pef"


def test_more_hosts_than_there_may_be_displace_the_silent_ones(platform: Platform, home: Path) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(raw(home)) for _ in range(MAX_HOSTS)]
        with Platform(home) as late:
            assert late.command("info")["kind"] == "pef"
        assert silent[0].recv(1) == b""


def test_a_hostile_guest_harms_nobody(platform: Platform, tmp_path: Path) -> None:
    body = """
import os
from enarx.tcb.wire import decode, encode, frame
raw = socket.socket(fileno=os.dup(4))
raw.setblocking(True)
for message in ([1], ['read'], ['run', 'x', b''], ['read', '../../etc/passwd', b''], ['read', 'coco', b'x']):
    raw.sendall(frame(encode(message)))
    size = int.from_bytes(raw.recv(4, socket.MSG_WAITALL), 'big')
    channel.sendall(b'%d ' % decode(raw.recv(size, socket.MSG_WAITALL), max_bytes=100)[0])
raw.sendall(b'\\xff' * 100)
while raw.recv(1000):
    pass
channel.sendall(b'closed')
"""
    image, argv = image_of(tmp_path, body)
    answers = all_of(run(platform, launch(platform, image), argv)).decode().split()
    assert answers == [*[str(errno.EINVAL)] * 3, str(errno.ENOENT), str(errno.EINVAL), "closed"]
    assert platform.command("info")["kind"] == "pef"


@pytest.mark.slow
def test_a_hundred_guests_on_one_platform(platform: Platform) -> None:
    """With a small program, because what is tried is the platform and not a hundred interpreters."""
    shell = Path("/bin/cat").resolve()
    argv = [str(shell), "/proc/self/fd/3"]
    image = pack_image([shell], argv)
    key = platform.command("info")["machine_key"]
    assert isinstance(key, bytes)
    digests = Digests.of(kernel=image, bootargs=BOOTARGS)
    blob = build_esm_blob(digests, machines={"m": key}, files={GUID: SECRET}, random=os.urandom)
    guests: dict[int, socket.socket] = {}
    for _ in range(100):
        handle = platform.command("launch", image=image, esm_blob=blob)["guest"]
        assert isinstance(handle, int)
        platform.command("finish", guest=handle)
        guests[handle] = run(platform, handle, argv)
    assert len(guests) == 100
    for handle, channel in guests.items():
        channel.close()
        platform.command("stop", guest=handle)


def test_it_ends_when_it_is_told_to_and_its_guests_with_it(start: Start, tmp_path: Path) -> None:
    process = start(tmp_path / "state")
    with Platform(tmp_path / "state") as platform:
        image, argv = image_of(tmp_path, "channel.sendall(b'up'); channel.recv(1)")
        channel = run(platform, launch(platform, image), argv)
        assert channel.recv(2) == b"up"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert all_of(channel) == b""
    assert not (tmp_path / "state" / SOCKET).exists()


def test_a_guest_learns_that_its_platform_was_killed(start: Start, tmp_path: Path) -> None:
    process = start(tmp_path / "state")
    body = """
channel.sendall(b'up')
channel.recv(1)
try:
    port.list('coco')
except Exception as error:
    channel.sendall(str(error).encode())
"""
    image, argv = image_of(tmp_path, body)
    with Platform(tmp_path / "state") as platform:
        channel = run(platform, launch(platform, image), argv)
    assert channel.recv(2) == b"up"
    process.kill()
    process.wait(timeout=60)
    start(tmp_path / "state")  # the guest that is left holds nothing that the next process needs
    channel.sendall(b"x")
    assert b"the platform" in all_of(channel)


def test_the_state_is_private(platform: Platform, home: Path) -> None:
    platform.command("info")
    modes = {path.name: path.stat().st_mode & 0o077 for path in (home).iterdir()}
    assert modes
    assert set(modes.values()) == {0}


def test_a_platform_in_a_deep_directory_can_be_reached(start: Start, tmp_path: Path) -> None:
    deep = tmp_path / ("long-name-" * 12) / "state"
    start(deep)
    with Platform(deep) as platform:
        assert platform.command("info")["kind"] == "pef"


def test_a_client_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no platform"):
        Platform(tmp_path)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"\xff" * 4)
        with pytest.raises(Malformed):
            PortTree(ours).read("x")


def test_a_platform_starts_quickly(start: Start, tmp_path: Path) -> None:
    """The figure is for a quiet machine; here it must not be off by far."""
    start(tmp_path / "state").terminate()
    began = time.monotonic()
    start(tmp_path / "other")
    assert time.monotonic() - began < 10


def test_hosts_and_guests_at_once_get_their_own_answers(
    platform: Platform, home: Path, tmp_path: Path
) -> None:
    body = f"""
while channel.recv(1):
    channel.sendall(port.read('coco/{GUID}') + str(len(port.list('coco'))).encode())
"""
    image, argv = image_of(tmp_path, body)

    def host(number: int) -> list[bytes]:
        with Platform(home) as own:
            guest = launch(own, image)
            with run(own, guest, argv) as channel:
                answers = []
                for _ in range(20):
                    channel.sendall(b"x")
                    answers.append(channel.recv(100))
                    assert own.command("measure", guest=guest)["measurement"]
            assert own.command("wait", guest=guest) == {"code": 0}
            own.command("stop", guest=guest)
            return answers

    with ThreadPoolExecutor(8) as pool:
        for answers in pool.map(host, range(8)):
            assert answers == [SECRET + b"1"] * 20


def test_guests_that_do_not_run_end_with_the_host_that_launched_them(
    platform: Platform, home: Path, tmp_path: Path
) -> None:
    image, argv = image_of(tmp_path, "channel.sendall(b'up'); channel.recv(1)")
    with Platform(home) as host:
        waiting = launch(host, image)
        running = launch(host, image)
        channel = run(host, running, argv)
        assert channel.recv(2) == b"up"
    platform.command("info")  # when this is answered the platform has seen that the host is gone
    with pytest.raises(Refused) as caught, socket.socket() as other:
        platform.run(waiting, argv, channel=other.fileno())
    assert caught.value.name == "U_PARAMETER"  # there is no such guest any more
    with pytest.raises(Refused, match="runs already"), socket.socket() as other:
        platform.run(running, argv, channel=other.fileno())
    platform.command("stop", guest=running)
    assert all_of(channel) == b""


def test_guests_without_a_host_are_decommissioned_when_their_process_ends(
    platform: Platform, home: Path, tmp_path: Path
) -> None:
    image, argv = image_of(tmp_path, "channel.sendall(b'up'); channel.recv(1)")
    with Platform(home) as host:
        guest = launch(host, image)
        channel = run(host, guest, argv)
        assert channel.recv(2) == b"up"
    channel.sendall(b"x")
    assert all_of(channel) == b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with pytest.raises(Refused) as caught, socket.socket() as other:
            platform.run(guest, argv, channel=other.fileno())
        if caught.value.name == "U_PARAMETER":
            return
        time.sleep(0.01)
    raise AssertionError("the guest is still there")


def test_guests_of_a_host_that_stays_are_its_own_to_stop(platform: Platform, tmp_path: Path) -> None:
    """As with processes: until it has asked how a guest ended, nobody else gets its handle."""
    image, argv = image_of(tmp_path, "sys.exit(3)")
    guest = launch(platform, image)
    assert all_of(run(platform, guest, argv)) == b""
    assert platform.command("wait", guest=guest) == {"code": 3}
    assert platform.command("stop", guest=guest) == {}
    assert refusal(platform, "stop", guest=guest).name == "U_PARAMETER"
