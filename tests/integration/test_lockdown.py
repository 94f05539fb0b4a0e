"""Locked-down processes attack. Each attack works in a free process, and fails in one that is locked down."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import resource
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import pytest
import wasmtime
from tests.integration.caged import DONE, FREE, UIDS, Cage, syscall

from enarx.tcb.keep.lockdown import (
    COMPONENT_FILES,
    Profile,
    _landlock,
    _namespaces,
    _seccomp,
    confine,
    die_with_parent,
    isolate,
    seal_code,
)
from enarx.tcb.keep.lockdown._syscalls import NUMBERS, PR_SET_NO_NEW_PRIVS, prctl

# System calls that the keep's own table has no use for: x86_64, aarch64.
OTHER_NUMBERS: Final = {
    "add_key": (248, 217),
    "chroot": (161, 51),
    "io_uring_setup": (425, 425),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_open": (434, 434),
    "reboot": (169, 142),
    "sendmmsg": (307, 269),
    "userfaultfd": (323, 282),
}
COLUMN: Final = ("x86_64", "aarch64").index(platform.machine())
PTRACE_SEIZE: Final = 0x4206
LOCALHOST: Final = "127.0.0.1"
MSG_FASTOPEN: Final = 0x2000_0000
CLONE_NEWUSER, CLONE_SIGHAND, CLONE_VM = 0x1000_0000, 0x800, 0x100
EXECUTABLE: Final = mmap.PROT_READ | mmap.PROT_EXEC
VICTIM: Final = ctypes.create_string_buffer(b"untouched")
"""Memory at the same address in the bystander."""
REFUSED: Final = ("EPERM", "EACCES", "SIGSYS", "ENOENT", "ESRCH", "EBADF")


def call(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make a system call by name, as an attacker does."""
    number = OTHER_NUMBERS[name][COLUMN] if name in OTHER_NUMBERS else NUMBERS[name]
    return syscall(number, *arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What the attacker finds: descriptors that a keep has, one that it has no more, and another process."""

    bystander: int
    file: int
    channel: socket.socket
    accepted: socket.socket
    address: tuple[str, int]
    fresh: socket.socket
    terminal: int
    foreign: int

    @property
    def kept(self) -> tuple[int, ...]:
        """The descriptors that a keep has."""
        return (self.file, self.channel.fileno(), self.accepted.fileno(), self.fresh.fileno(), self.terminal)


@contextmanager
def bystander(uid: int) -> Iterator[int]:
    """Run a process of the user ``uid`` that does nothing."""
    pid = os.fork()
    if pid == 0:
        if uid != os.geteuid():
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        call("prctl", 4, 1, 0, 0, 0)
        signal.pause()
        os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.fixture(params=UIDS, ids=lambda uid: f"uid{uid}")
def uid(request: pytest.FixtureRequest) -> int:
    """The user that makes the keep: root and nobody, or whoever runs the tests."""
    number: int = request.param
    return number


@pytest.fixture
def scene(uid: int) -> Iterator[Scene]:
    """Everything that an attack needs, in the host's namespaces."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        stack.enter_context(socket.create_connection(listener.getsockname()))
        accepted = stack.enter_context(listener.accept()[0])
        channel, other = socket.socketpair()
        stack.enter_context(channel)
        stack.enter_context(other)
        file, foreign = os.memfd_create("file"), os.memfd_create("foreign")
        main_side, terminal = os.openpty()
        for fd in (file, foreign, main_side, terminal):
            stack.callback(os.close, fd)
        os.write(file, b"\xc3" * mmap.PAGESIZE)
        pid = stack.enter_context(bystander(uid))
        yield Scene(
            bystander=pid,
            file=file,
            channel=channel,
            accepted=accepted,
            address=listener.getsockname(),
            fresh=stack.enter_context(socket.socket()),
            terminal=terminal,
            foreign=foreign,
        )


ATTACKS: Final[dict[str, Callable[[Scene], object]]] = {}
ROOT_ONLY: Final = set[str]()
"""Attacks that no kernel lets an ordinary user make, locked down or not."""


def attack(function: Callable[[Scene], object]) -> Callable[[Scene], object]:
    """Make ``function`` a case of the tests below; it raises ``OSError`` when it is refused."""
    ATTACKS[function.__name__] = function
    return function


def attack_of_root(function: Callable[[Scene], object]) -> Callable[[Scene], object]:
    """Make ``function`` a case that needs a keep made by root."""
    ROOT_ONLY.add(function.__name__)
    return attack(function)


# --- files -----------------------------------------------------------------------------------------------------------


@attack
def read_a_file_of_the_host(_: Scene) -> None:
    with open("/etc/passwd", "rb") as file:
        file.read()


@attack
def list_the_root_of_the_host(_: Scene) -> None:
    os.listdir("/")


@attack
def learn_whether_a_file_exists(_: Scene) -> None:
    os.stat("/etc/passwd")


@attack
def read_proc(_: Scene) -> None:
    with open("/proc/self/maps", "rb") as file:
        file.read()


@attack
def reopen_an_inherited_descriptor_through_proc(scene: Scene) -> None:
    os.close(os.open(f"/proc/self/fd/{scene.file}", os.O_RDWR))


@attack
def read_a_descriptor_of_another_keep(scene: Scene) -> None:
    os.pread(scene.foreign, 1, 0)


@attack
def mount_a_file_system(_: Scene) -> None:
    try:
        call("mount", b"tmpfs", b"/nonexistent", b"tmpfs", 0, None)
    except FileNotFoundError:
        return  # the kernel looked for the place: it would have gone on


@attack
def change_the_root(_: Scene) -> None:
    try:
        call("chroot", b"/nonexistent")
    except FileNotFoundError:
        return


@attack_of_root
def open_a_file_by_its_handle(_: Scene) -> None:
    """The Shocker attack: with CAP_DAC_READ_SEARCH any inode of a mounted file system can be opened."""
    try:
        call("open_by_handle_at", -1, struct.pack("Ii", 8, 1) + bytes(8), 0)
    except OSError as error:
        if error.errno not in (9, 22):  # EBADF, EINVAL: the right to do it was there
            raise


@attack
def make_a_file_in_memory(_: Scene) -> None:
    os.close(call("memfd_create", b"code", 0))


# --- network ---------------------------------------------------------------------------------------------------------


@attack
def make_a_socket(_: Scene) -> None:
    socket.socket().close()


@attack
def make_a_netlink_socket(_: Scene) -> None:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()


@attack
def connect_to_an_abstract_socket(_: Scene) -> None:
    try:
        socket.socket(socket.AF_UNIX).connect("\0nobody listens here")
    except ConnectionRefusedError:
        return


@attack
def connect_an_inherited_socket_by_sending(scene: Scene) -> None:
    """TCP Fast Open connects without a call of connect."""
    place = struct.pack("=H", socket.AF_INET) + struct.pack(
        "!H4s8x", scene.address[1], socket.inet_aton(LOCALHOST)
    )
    call("sendto", scene.fresh.fileno(), b"x", 1, MSG_FASTOPEN, place, len(place))


@attack
def connect_an_inherited_socket_by_sending_a_message(scene: Scene) -> None:
    scene.fresh.sendmsg([b"x"], [], MSG_FASTOPEN, scene.address)


@attack
def connect_an_inherited_socket_at_the_first_write(scene: Scene) -> None:
    scene.fresh.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT


@attack
def connect_an_inherited_socket(scene: Scene) -> None:
    scene.fresh.connect(scene.address)


@attack_of_root
def attach_a_filter_to_a_socket(scene: Scene) -> None:
    program = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0))
    scene.accepted.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", 1, ctypes.addressof(program)))


@attack
def stack_a_protocol_on_tcp(scene: Scene) -> None:
    try:
        scene.accepted.setsockopt(socket.IPPROTO_TCP, 31, b"no such protocol")
    except OSError as error:
        if error.errno == 1:
            raise


@attack
def send_many_messages(scene: Scene) -> None:
    call("sendmmsg", scene.channel.fileno(), None, 0, 0)


# --- other processes -------------------------------------------------------------------------------------------------


@attack
def signal_another_process(scene: Scene) -> None:
    os.kill(scene.bystander, 0)


@attack
def trace_another_process(scene: Scene) -> None:
    call("ptrace", PTRACE_SEIZE, scene.bystander, 0, 0)


@attack
def write_to_the_memory_of_another_process(scene: Scene) -> None:
    data = ctypes.create_string_buffer(b"defaced")
    ours = struct.pack("@PN", ctypes.addressof(data), 7)
    theirs = struct.pack("@PN", ctypes.addressof(VICTIM), 7)
    call("process_vm_writev", scene.bystander, ours, 1, theirs, 1, 0)


@attack
def read_the_memory_of_another_process(scene: Scene) -> None:
    room = ctypes.create_string_buffer(9)
    ours = struct.pack("@PN", ctypes.addressof(room), 9)
    theirs = struct.pack("@PN", ctypes.addressof(VICTIM), 9)
    call("process_vm_readv", scene.bystander, ours, 1, theirs, 1, 0)


@attack
def hold_on_to_another_process(scene: Scene) -> None:
    os.close(call("pidfd_open", scene.bystander, 0))


@attack
def fork(_: Scene) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@attack
def clone_a_process(_: Scene) -> None:
    pid = call("clone", signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@attack
def execute_a_program(_: Scene) -> None:
    os.execv("/bin/true", ["true"])  # noqa: S606 (a keep must not be able to do this)


# --- privileges ------------------------------------------------------------------------------------------------------


@attack
def make_a_user_namespace(_: Scene) -> None:
    call("unshare", CLONE_NEWUSER)


@attack
def become_the_same_user_again(_: Scene) -> None:
    os.setuid(os.getuid())


@attack_of_root
def become_another_user(_: Scene) -> None:
    os.setuid(1)


@attack
def set_a_resource_limit(_: Scene) -> None:
    limits = struct.pack("=QQ", *resource.getrlimit(resource.RLIMIT_NOFILE))
    call("prlimit64", 0, resource.RLIMIT_NOFILE, limits, None)


@attack
def become_dumpable(_: Scene) -> None:
    call("prctl", 4, 1, 0, 0, 0)


@attack
def change_the_personality(_: Scene) -> None:
    """READ_IMPLIES_EXEC would make all memory executable."""
    call("personality", 0x40_0000)


# --- the kernel's larger surfaces ------------------------------------------------------------------------------------


def _reaches(name: str, *arguments: int | bytes | None) -> None:
    """Make a call with nonsense; a complaint about the arguments, or that the kernel lacks it, is not a refusal."""
    try:
        call(name, *arguments)
    except OSError as error:
        if error.errno in (1, 13):
            raise


@attack_of_root
def load_a_bpf_program(_: Scene) -> None:
    _reaches("bpf", 0, None, 0)


@attack
def set_up_io_uring(_: Scene) -> None:
    _reaches("io_uring_setup", 0, None)


@attack
def handle_page_faults(_: Scene) -> None:
    _reaches("userfaultfd", 1)


@attack
def use_keyrings(_: Scene) -> None:
    _reaches("keyctl", 0, -3, 0)


@attack
def add_a_key(_: Scene) -> None:
    _reaches("add_key", None, None, None, 0, 0)


@attack
def measure_performance(_: Scene) -> None:
    _reaches("perf_event_open", None, 0, -1, -1, 0)


@attack_of_root
def load_a_kernel_module(_: Scene) -> None:
    _reaches("finit_module", -1, b"", 0)


@attack_of_root
def restart_the_machine(_: Scene) -> None:
    _reaches("reboot", 0, 0, 0, None)  # wrong magic numbers: nothing happens


@attack_of_root
def type_into_the_terminal(scene: Scene) -> None:
    try:
        fcntl.ioctl(scene.terminal, 0x5412, b"x")  # TIOCSTI
    except OSError as error:
        if error.errno != 5:  # EIO: this kernel has it switched off for everybody
            raise


@attack
def take_over_the_signals_of_a_descriptor(scene: Scene) -> None:
    fcntl.fcntl(scene.channel, fcntl.F_SETOWN, os.getpid())


# --- code ------------------------------------------------------------------------------------------------------------


@attack
def map_executable_memory(_: Scene) -> None:
    mmap.mmap(-1, mmap.PAGESIZE, prot=EXECUTABLE).close()


@attack
def map_writable_executable_memory(_: Scene) -> None:
    mmap.mmap(-1, mmap.PAGESIZE, prot=EXECUTABLE | mmap.PROT_WRITE).close()


@attack
def map_a_file_as_code(scene: Scene) -> None:
    mmap.mmap(scene.file, mmap.PAGESIZE, prot=EXECUTABLE).close()


@attack
def make_memory_executable(_: Scene) -> None:
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    call("mprotect", ctypes.addressof(ctypes.c_char.from_buffer(memory)), mmap.PAGESIZE, EXECUTABLE)


@attack
def make_memory_executable_with_a_key(_: Scene) -> None:
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    call("pkey_mprotect", address, mmap.PAGESIZE, EXECUTABLE, -1)


# --- the tests -------------------------------------------------------------------------------------------------------

KEEPS: Final = (Profile.MODULE, Profile.COMPONENT)
CASES: Final = [(name, uid) for name in ATTACKS for uid in UIDS if uid == 0 or name not in ROOT_ONLY]


@pytest.mark.parametrize("profile", KEEPS, ids=lambda profile: profile.value)
@pytest.mark.parametrize(("name", "uid"), CASES, indirect=["uid"])
def test_attack_is_refused(name: str, profile: Profile, scene: Scene, uid: int) -> None:
    def attack() -> object:
        return ATTACKS[name](scene)

    assert Cage(uid=uid, isolated=False, confined=False).run(attack) == DONE
    assert Cage(uid=uid, profile=profile, keeps=scene.kept).run(attack) in REFUSED


@pytest.mark.parametrize("name", ["fork", "clone_a_process", "execute_a_program", "trace_another_process"])
def test_what_only_an_attacker_wants_ends_the_process(name: str, scene: Scene, uid: int) -> None:
    assert Cage(uid=uid).run(lambda: ATTACKS[name](scene)) == "SIGSYS"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86_64 has a second set of numbers")
def test_numbers_of_x32_end_the_process() -> None:
    def attack() -> None:
        with pytest.raises(OSError, match="system call"):
            syscall(0x4000_0000 | NUMBERS["getpid"])

    assert FREE.run(attack) == DONE
    assert Cage().run(attack) == "SIGSYS"


# Each layer by itself, so that the others do not hide its absence.


def test_namespaces_alone_hide_files_network_processes_and_names(scene: Scene, uid: int) -> None:
    cage = Cage(uid=uid, confined=False, keeps=(scene.file,))
    assert cage.run(lambda: ATTACKS["read_a_file_of_the_host"](scene)) == "ENOENT"
    assert cage.run(lambda: ATTACKS["read_proc"](scene)) == "ENOENT"
    assert cage.run(lambda: os.listdir("/")) == "[]"
    assert cage.run(lambda: os.close(os.open("/file", os.O_CREAT | os.O_WRONLY))) in ("EROFS", "EACCES")
    assert cage.run(lambda: ATTACKS["signal_another_process"](scene)) == "ESRCH"
    assert cage.run(lambda: [name for _, name in socket.if_nameindex()]) == "['lo']"
    assert cage.run(lambda: socket.create_connection(scene.address)) == "ENETUNREACH"
    assert cage.run(lambda: os.uname().nodename) == "keep"
    assert cage.run(os.getpid) == "1"
    assert cage.run(os.getresuid) == str((_namespaces.NOBODY,) * 3)
    assert cage.run(lambda: ATTACKS["read_a_descriptor_of_another_keep"](scene)) == "EBADF"


def test_an_abstract_socket_of_the_host_is_out_of_reach(uid: int) -> None:
    name = f"\0enarx-test-{os.getpid()}"

    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(name)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        assert Cage(uid=uid, isolated=False, confined=False).run(connect) == DONE
        assert Cage(uid=uid, confined=False).run(connect) == "ECONNREFUSED"


def test_root_is_nobody_outside_too() -> None:
    """A file that only its owner may read stays closed, even to a descriptor that leads to its directory."""

    def owner() -> object:
        return os.fstat(os.memfd_create("mine")).st_uid  # as seen from inside the user namespace

    assert Cage(confined=False).run(owner) == str(_namespaces.NOBODY)
    inside = Cage(confined=False, keeps=(root := os.open("/", os.O_RDONLY),))
    try:
        free = FREE.run(lambda: os.close(os.open("etc/shadow", os.O_RDONLY, dir_fd=root)))
        assert free == (DONE if os.geteuid() == 0 else "EACCES")
        assert inside.run(lambda: os.close(os.open("etc/shadow", os.O_RDONLY, dir_fd=root))) == "EACCES"
    finally:
        os.close(root)


def test_landlock_alone_denies_every_file(scene: Scene, uid: int) -> None:
    def restricted(action: Callable[[], object]) -> Callable[[], object]:
        def run() -> object:
            prctl(PR_SET_NO_NEW_PRIVS, 1)
            _landlock.restrict(None)
            return action()

        return run

    free = Cage(uid=uid, isolated=False, confined=False)
    for name in ("read_a_file_of_the_host", "list_the_root_of_the_host", "read_proc"):

        def action(name: str = name) -> object:
            return ATTACKS[name](scene)

        assert free.run(action) == DONE
        assert free.run(restricted(action)) == "EACCES"


def test_landlock_alone_allows_one_directory_and_no_device_in_it(tmp_path: os.PathLike[str]) -> None:
    inside, outside = os.path.join(tmp_path, "inside"), os.path.join(tmp_path, "outside")
    os.mkdir(inside)

    def write(directory: str) -> Callable[[], object]:
        def run() -> None:
            prctl(PR_SET_NO_NEW_PRIVS, 1)
            _landlock.restrict(inside)
            os.close(os.open(f"{directory}/file", os.O_CREAT | os.O_WRONLY))

        return run

    def make_a_pipe() -> None:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        _landlock.restrict(inside)
        os.mkfifo(f"{inside}/pipe")

    assert FREE.run(write(inside)) == DONE
    assert FREE.run(lambda: os.mkdir(outside)) == DONE
    assert FREE.run(write(outside)) == "EACCES"
    assert FREE.run(lambda: os.mkfifo(f"{outside}/pipe")) == DONE
    assert FREE.run(make_a_pipe) == "EACCES"


def test_confinement_alone_refuses_what_the_namespaces_hide(scene: Scene, uid: int) -> None:
    cage = Cage(uid=uid, isolated=False)
    for name in (
        "read_a_file_of_the_host",
        "make_a_socket",
        "signal_another_process",
        "make_a_user_namespace",
    ):
        assert cage.run(partial(ATTACKS[name], scene)) in ("EPERM", "SIGSYS")


def test_no_capability_is_left_to_root(uid: int) -> None:
    """Without seccomp: even in its own user namespace the process has no power, and none comes back."""

    def capabilities() -> object:
        with open("/proc/self/status") as status:
            lines = dict(line.split(":\t") for line in status.read().splitlines() if ":\t" in line)
        return [int(lines[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")]

    def given_up() -> object:
        from enarx.tcb.keep import lockdown

        lockdown._no_capabilities(but=0)
        return capabilities()

    assert Cage(uid=uid, isolated=False, confined=False).run(given_up) == "[0, 0, 0, 0]"
    if uid == 0:
        assert FREE.run(capabilities) != "[0, 0, 0, 0]"


def test_limits_of_resources_cannot_be_raised_again() -> None:
    def core_limit() -> object:
        return resource.getrlimit(resource.RLIMIT_CORE)

    assert Cage().run(core_limit) == "(0, 0)"


def test_another_process_of_the_same_user_cannot_read_a_keep(uid: int) -> None:
    """A keep is not dumpable: its memory and descriptors belong to root alone."""

    def peek(locked: bool) -> Callable[[], object]:
        def run() -> object:
            reader, writer = os.pipe()
            keep = os.fork()
            if keep == 0:
                if locked:
                    confine(Profile.MODULE)
                os.write(writer, b"x")
                threading.Event().wait(20)
                os._exit(0)
            os.read(reader, 1)
            try:
                os.listdir(f"/proc/{keep}/fd")
                with open(f"/proc/{keep}/mem", "rb"):
                    return None
            finally:
                os.kill(keep, signal.SIGKILL)
                os.waitpid(keep, 0)

        return run

    cage = Cage(uid=uid, isolated=False, confined=False)
    assert cage.run(peek(locked=False)) == DONE
    if uid != 0:
        assert cage.run(peek(locked=True)) == "EACCES"


def test_a_keep_ends_with_its_parent() -> None:
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        isolate(Profile.MODULE)
        if os.fork() == 0:
            die_with_parent(None)
            confine(Profile.MODULE)
            os.write(writer, b"up")
            threading.Event().wait(60)
        signal.pause()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb", buffering=0) as reading:
        assert reading.read(2) == b"up"
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        assert select.select([reading], [], [], 20)[0], "the keep lives on"
        assert reading.read(1) == b""  # the end comes when the last process that could write is gone


# What must go on working.


def _module(engine: wasmtime.Engine) -> wasmtime.Module:
    more = "(func (result i32) i32.const 6 i32.const 7 i32.mul)" * 500
    return wasmtime.Module(
        engine,
        f'(module (memory (export "memory") 1) (func (export "add") (param i32 i32) (result i32)'
        f' local.get 0 local.get 1 i32.add) (func (export "fall") unreachable) {more})',
    )


def _engine() -> wasmtime.Engine:
    config = wasmtime.Config()
    config.memory_init_cow = False
    return wasmtime.Engine(config)


@pytest.mark.parametrize("profile", KEEPS, ids=lambda profile: profile.value)
def test_wasm_compiles_in_parallel_and_runs_in_threads(profile: Profile, uid: int) -> None:
    def work() -> object:
        engine = _engine()
        module = _module(engine)
        assert seal_code().applied
        sums = []

        def run(number: int) -> None:
            store = wasmtime.Store(engine)
            add = wasmtime.Instance(store, module, []).exports(store)["add"]
            assert isinstance(add, wasmtime.Func)
            sums.append(add(store, number, 1))

        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(sums)

    assert Cage(uid=uid, profile=profile, sealed=False).run(work) == str([1, 2, 3, 4, 5, 6, 7, 8])


def test_a_trap_in_wasm_is_an_exception_in_a_keep() -> None:
    def work() -> object:
        engine = _engine()
        module = _module(engine)
        seal_code()
        store = wasmtime.Store(engine)
        fall = wasmtime.Instance(store, module, []).exports(store)["fall"]
        assert isinstance(fall, wasmtime.Func)
        try:
            fall(store)
        except wasmtime.Trap as trap:
            return trap.trap_code
        return None

    assert Cage(sealed=False).run(work) == str(wasmtime.TrapCode.UNREACHABLE)


def test_nothing_compiles_after_the_code_is_sealed() -> None:
    def work() -> object:
        engine = _engine()
        try:
            _module(engine)
        except wasmtime.WasmtimeError:
            return "no code"
        return None

    assert Cage(sealed=False).run(work) == DONE
    assert Cage().run(work) == "no code"


@pytest.mark.parametrize("name", [name for name in ATTACKS if "memory" in name and "execut" in name])
def test_the_filter_for_older_kernels_seals_code_in_every_thread(name: str, scene: Scene) -> None:
    def work() -> object:
        sealed, done = threading.Event(), threading.Event()
        answers: list[int | None] = []

        def attack() -> None:
            sealed.wait()
            try:
                ATTACKS[name](scene)
            except OSError as error:
                answers.append(error.errno)
            done.set()

        threading.Thread(target=attack, daemon=True).start()
        _seccomp.no_new_code()
        sealed.set()
        done.wait()
        return answers

    assert Cage(sealed=False).run(work) == "[1]"


def test_a_job_arrives_over_the_channel_with_descriptors() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()

    def work() -> object:
        data, fds, _, _ = socket.recv_fds(theirs, 100, 3)
        os.write(fds[0], data.upper())
        theirs.sendall(b"done")
        theirs.settimeout(1)
        os.get_blocking(fds[0])
        os.fstat(fds[0])
        os.isatty(fds[0])
        return None

    with ours, theirs:
        socket.send_fds(ours, [b"job"], [writer])
        assert Cage(keeps=(theirs.fileno(),)).run(work) == DONE
        assert ours.recv(100) == b"done"
    os.close(writer)
    assert os.read(reader, 100) == b"JOB"
    os.close(reader)


def test_connections_of_the_host_are_accepted_polled_and_tuned() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        client.sendall(b"ping")

        def work() -> object:
            poll = select.epoll()
            poll.register(listener, select.EPOLLIN)
            assert poll.poll(5)
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            connection.setblocking(False)
            assert select.select([connection], [], [], 5)[0]
            connection.sendall(connection.recv(100))
            connection.getpeername()
            connection.shutdown(socket.SHUT_WR)
            os.close(os.eventfd(0))
            return None

        assert Cage(keeps=(listener.fileno(),)).run(work) == DONE
        client.settimeout(5)
        assert client.recv(100) == b"ping"


def test_a_component_has_a_file_system_of_its_own_with_an_end(uid: int) -> None:
    def work() -> object:
        os.mkdir(f"{COMPONENT_FILES}/a")
        with open(f"{COMPONENT_FILES}/a/file", "wb") as file:
            file.write(b"x" * 5000)
        os.symlink("file", f"{COMPONENT_FILES}/a/link")
        os.rename(f"{COMPONENT_FILES}/a", f"{COMPONENT_FILES}/b")
        os.utime(f"{COMPONENT_FILES}/b/file", ns=(1, 2))
        with open(f"{COMPONENT_FILES}/b/link", "rb") as file:
            assert len(file.read()) == 5000
        os.unlink(f"{COMPONENT_FILES}/b/link")
        return os.listdir(f"{COMPONENT_FILES}/b")

    def overflow() -> None:
        for number in range(1 << 15):
            os.close(os.open(f"{COMPONENT_FILES}/{number}", os.O_CREAT | os.O_WRONLY))

    cage = Cage(uid=uid, profile=Profile.COMPONENT)
    assert cage.run(work) == "['file']"
    assert cage.run(overflow) == "ENOSPC"
    assert cage.run(lambda: os.mkfifo(f"{COMPONENT_FILES}/pipe")) == "EPERM"
    assert not os.path.exists(f"{COMPONENT_FILES}/b")


def test_without_an_empty_root_a_component_gets_no_files_at_all() -> None:
    """The directory ``/work`` of a host is nobody's file system of a component."""
    cage = Cage(isolated=False, profile=Profile.COMPONENT)
    assert cage.run(lambda: os.listdir("/etc")) == "EACCES"
    assert cage.run(lambda: os.listdir(COMPONENT_FILES)) in ("EACCES", "ENOENT")
