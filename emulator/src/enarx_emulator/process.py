"""The platform process: one emulated machine, the hosts that command it, and the guests that ask it.

One thread serves everybody: the firmware does one thing at a time. Nobody who is slow, silent or hostile holds up the
others: nothing blocks, what is read and what waits to be written is bounded, and broken streams are closed.
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import signal
import socket
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from enarx.tcb.errors import EnarxError, Malformed, Unavailable
from enarx.tcb.wire import FrameDecoder, Value, frame
from enarx_emulator import program
from enarx_emulator.arguments import Arguments
from enarx_emulator.errors import EmulatorError
from enarx_emulator.identity import Identity
from enarx_emulator.machine import Guest
from enarx_emulator.messages import (
    MAX_HOST_BYTES,
    MAX_PORT_BYTES,
    answer_guest,
    pack_error,
    pack_result,
    parse_request,
)

if TYPE_CHECKING:
    from enarx.api.vm_image import VmImage
    from enarx_emulator.loader import Loader

SOCKET: Final = "host.sock"
MAX_HOSTS: Final = 64
"""Hosts that may be connected; another one displaces the one that has been silent the longest."""
MAX_DESCRIPTORS: Final = 4
"""Descriptors that a host may have sent without using them."""
MAX_WAITING_BYTES: Final = 1 << 20
"""Answers that may wait for a peer; until it reads them, no more is read from it."""
READ_BYTES: Final = 1 << 18
_LOG: Final = logging.getLogger("enarx_emulator")


class _Stream:
    """One peer: frames in, frames out, never blocking."""

    def __init__(self, sock: socket.socket, *, max_bytes: int, on_frame: Callable[[bytes], None]) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.descriptors: deque[int] = deque()
        self.heard = 0
        self._on_frame = on_frame
        self._decoder = FrameDecoder(max_bytes=max_bytes)
        self._out = bytearray()

    @property
    def events(self) -> int:
        """What to wait for."""
        read = selectors.EVENT_READ if len(self._out) < MAX_WAITING_BYTES else 0
        return read | (selectors.EVENT_WRITE if self._out else 0)

    def send(self, body: bytes) -> None:
        """Queue an answer."""
        self._out += frame(body)

    def ready(self, events: int) -> bool:
        """Read and write what goes without waiting; ``False`` when the stream is over."""
        try:
            if events & selectors.EVENT_READ and not self._read():
                return False
            if self._out:
                del self._out[: self.sock.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def _read(self) -> bool:
        data, ancillary, _, _ = self.sock.recvmsg(READ_BYTES, socket.CMSG_LEN(4 * MAX_DESCRIPTORS))
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._take(payload)
        if not data:
            return False
        self._decoder.feed(data)
        try:
            for body in self._decoder.frames():
                self._on_frame(body)
        except Malformed as error:
            self.send(pack_error(error))
            with suppress(OSError):
                self.sock.send(self._out)
            return False
        return True

    def _take(self, payload: bytes) -> None:
        received = array("i")
        received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
        for descriptor in received:
            os.set_inheritable(descriptor, False)
            self.descriptors.append(descriptor)
        while len(self.descriptors) > MAX_DESCRIPTORS:
            os.close(self.descriptors.popleft())

    def close(self) -> None:
        """Let go of everything."""
        while self.descriptors:
            os.close(self.descriptors.popleft())
        self.sock.close()


@dataclass(slots=True)
class _Running:
    """A guest that was launched, and its process once it runs."""

    image: bytes
    owner: _Stream | None
    """The host that launched it, as long as it is connected: it stops its guests itself, and learns how they ended."""
    pid: int | None = None
    pidfd: int | None = None
    ours: bool = True
    port: _Stream | None = None
    end: Mapping[str, Value] | None = None
    waiting: list[_Stream] = field(default_factory=list)


class Process:
    """Serves one machine at ``DIRECTORY/host.sock``."""

    def __init__(self, identity: Identity, directory: Path, *, vcpus: int = 1) -> None:
        """``vcpus``: how many processors a virtual machine gets that a host launches."""
        self._vcpus = vcpus
        self._identity = identity
        self._directory = directory
        self._selector = selectors.DefaultSelector()
        self._hosts: dict[_Stream, None] = {}
        self._guests: dict[int, _Running] = {}
        self._clock = 0
        self._stopping = False
        self._loader: Loader | None = None
        self._listener = _listen(directory)
        self._register(self._listener.fileno(), self._accept)
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._register(self._woken.fileno(), self._stop_serving)

    def serve(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        old = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, _ignored) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while not self._stopping:
                for key, events in self._selector.select():
                    if self._is_current(key):
                        key.data(events)
        finally:
            signal.set_wakeup_fd(old)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self.close()

    def close(self) -> None:
        """End all guests and let go of everything."""
        for handle in list(self._guests):
            self._forget(handle)
        if self._loader is not None:
            self._loader.close()
        for host in list(self._hosts):
            self._drop(host)
        with suppress(OSError):
            (self._directory / SOCKET).unlink()
        for sock in (self._listener, self._wake, self._woken):
            sock.close()
        self._selector.close()

    def _is_current(self, key: selectors.SelectorKey) -> bool:
        """Whether somebody still waits for it: who came before in the same round may have closed it."""
        current = self._selector.get_map().get(key.fd)
        return current is not None and current.data is key.data

    def _stop_serving(self, events: int) -> None:
        self._stopping = True

    def _register(self, descriptor: int, call: Callable[[int], None]) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, call)

    def _accept(self, events: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._drop_most_silent()
            return
        if len(self._hosts) >= MAX_HOSTS:
            self._drop_most_silent()
        host = _Stream(sock, max_bytes=MAX_HOST_BYTES, on_frame=lambda body: self._commanded(host, body))
        host.heard = self._tick()
        self._hosts[host] = None
        self._register(sock.fileno(), lambda events: self._host_ready(host, events))

    def _host_ready(self, host: _Stream, events: int) -> None:
        host.heard = self._tick()
        if host.ready(events):
            self._watch(host)
        else:
            self._drop(host)

    def _watch(self, stream: _Stream) -> None:
        """Wait for what the stream can do now."""
        key = self._selector.get_key(stream.sock)
        if key.events != stream.events:
            self._selector.modify(stream.sock, stream.events, key.data)

    def _drop_most_silent(self) -> None:
        if self._hosts:
            self._drop(min(self._hosts, key=lambda host: host.heard))

    def _drop(self, host: _Stream) -> None:
        self._selector.unregister(host.sock)
        del self._hosts[host]
        for handle, running in list(self._guests.items()):
            if host in running.waiting:
                running.waiting.remove(host)
            if running.owner is host:
                running.owner = None
                self._release(handle, running)
        host.close()

    def _release(self, handle: int, running: _Running) -> None:
        """Decommission a guest that does not run and that nobody would stop."""
        if running.owner is None and running.pidfd is None and self._guests.get(handle) is running:
            del self._guests[handle]
            with suppress(EnarxError):
                self._identity.machine.command("stop", {"guest": handle})
            self._identity.keep()

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _commanded(self, host: _Stream, body: bytes) -> None:
        """Do what a host wants; whatever goes wrong is an answer."""
        try:
            command, arguments = parse_request(body)
            result = self._command(host, command, arguments)
        except EnarxError as error:
            host.send(pack_error(error))
        except Exception as error:  # a mistake in the firmware must not end the platform for everybody
            _LOG.exception("command failed")
            host.send(pack_error(error))
        else:
            if result is not None:
                host.send(pack_result(result))

    def _command(
        self, host: _Stream, command: str, arguments: dict[str, Value]
    ) -> Mapping[str, Value] | None:
        if command == "run":
            return self._run(host, Arguments(command, arguments))
        if command == "wait":
            return self._wait(host, Arguments(command, arguments))
        if command == "load":
            return self._load(Arguments(command, arguments))
        if command == "keep":
            return self._keep(host, Arguments(command, arguments))
        machine, image = self._identity.machine, arguments.get("image")
        if command == "launch" and self._loader is not None and image in self._loader.machines:
            arguments = self._as_machine(arguments, self._loader.machines[image])
        try:
            result = machine.command(command, arguments)
        finally:
            self._identity.keep()
        handle = result.get("guest")
        if command == "launch" and isinstance(handle, int) and isinstance(image, bytes):
            self._guests[handle] = _Running(image=image, owner=host)
        if command == "stop" and isinstance(stopped := arguments.get("guest"), int):
            self._forget(stopped)
        return result

    def _as_machine(self, arguments: dict[str, Value], image: VmImage) -> dict[str, Value]:
        """Launch what QEMU loads for a VM keep in place of a process keep's image."""
        from enarx_emulator.vm_launch import launch_arguments

        others = {name: value for name, value in arguments.items() if name != "image"}
        kind = self._identity.machine.kind
        return {**launch_arguments(kind, image, vcpus=self._vcpus), **others}

    def _load(self, arguments: Arguments) -> Mapping[str, Value]:
        """Load a keep image, so that keeps of it start at once; give the manifest, which ``launch`` measures."""
        path = arguments.text("path")
        arguments.end()
        if self._loader is None:
            from enarx_emulator.loader import Loader  # what it needs costs a platform without keeps its start

            self._loader = Loader(self._directory, vcpus=self._vcpus)
        return {"image": self._loader.load(Path(path))}

    def _keep(self, host: _Stream, arguments: Arguments) -> Mapping[str, Value]:
        """Start the keep of a launched guest, whose image is loaded; its channel goes over the descriptor given."""
        handle = arguments.number("guest")
        arguments.end()
        over = _descriptor(host, "keep")
        try:
            guest, running = self._launched(handle)
            if self._loader is None:
                raise EmulatorError("the image is not loaded", hint="load it first")
            keep = self._loader.start(running.image, self._identity.machine.kind)
            with keep.channel as channel, socket.socket(fileno=os.dup(over)) as way:
                socket.send_fds(way, [b"c"], [channel.fileno()])
            self._serve_guest(handle, guest, keep.pid, keep.port, ours=False)
            return {"pid": keep.pid, "booting": keep.booting}
        except OSError as error:
            raise EmulatorError(f"the channel cannot be handed over: {error.strerror}") from None
        finally:
            os.close(over)

    def _launched(self, handle: int) -> tuple[Guest, _Running]:
        """Give a guest whose launch is finished and that does not run yet."""
        guest = self._identity.machine.guest(handle)
        running = self._guests.get(handle)
        if running is None:
            raise EmulatorError(f"guest {handle} was not launched from an image")
        if running.pid is not None:
            raise EmulatorError(f"guest {handle} runs already")
        return guest, running

    def _run(self, host: _Stream, arguments: Arguments) -> Mapping[str, Value]:
        """Start the program of a launched guest, after holding its files against what was measured."""
        handle = arguments.number("guest")
        root, argv = arguments.text("root", "/"), arguments.texts("argv")
        arguments.end()
        channel = _descriptor(host, "run")
        try:
            guest, _ = self._launched(handle)
            return self._started(handle, guest, Path(root), argv, channel)
        finally:
            os.close(channel)

    def _started(
        self, handle: int, guest: Guest, root: Path, argv: list[str], channel: int
    ) -> Mapping[str, Value]:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                pid = program.start(
                    self._guests[handle].image, root, argv, channel=channel, port=theirs.fileno()
                )
            except BaseException:
                ours.close()
                raise
        self._serve_guest(handle, guest, pid, ours, ours=True)
        return {"pid": pid}

    def _serve_guest(self, handle: int, guest: Guest, pid: int, sock: socket.socket, *, ours: bool) -> None:
        """Answer what the process ``pid`` asks on its port, until it ends; ``ours`` are those we can wait for."""
        running = self._guests[handle]
        tree = guest.tree()
        port = _Stream(
            sock, max_bytes=MAX_PORT_BYTES, on_frame=lambda body: port.send(answer_guest(tree, body))
        )
        running.pid, running.pidfd, running.port, running.ours = pid, os.pidfd_open(pid), port, ours
        self._register(sock.fileno(), lambda events: self._port_ready(running, port, events))
        self._register(running.pidfd, lambda events: self._process_ended(handle, running))

    def _port_ready(self, running: _Running, port: _Stream, events: int) -> None:
        try:
            alive = port.ready(events)
        except Exception:  # as with commands: one guest must not end the platform for all
            _LOG.exception("operation of a guest failed")
            alive = False
        if alive:
            self._watch(port)
        else:
            self._shut_port(running)

    def _shut_port(self, running: _Running) -> None:
        if running.port is not None:
            self._selector.unregister(running.port.sock)
            running.port.close()
            running.port = None

    def _process_ended(self, handle: int, running: _Running) -> None:
        self._ended(running)
        self._release(handle, running)

    def _ended(self, running: _Running) -> None:
        """Take note of how a guest's process ended, and tell who waits for it."""
        if running.pid is None or running.pidfd is None:
            return
        running.end = _end_of(running.pid) if running.ours else {}
        self._selector.unregister(running.pidfd)
        os.close(running.pidfd)
        running.pidfd = None
        self._shut_port(running)
        for host in running.waiting:
            host.send(pack_result(running.end))
            self._watch(host)
        running.waiting.clear()

    def _wait(self, host: _Stream, arguments: Arguments) -> Mapping[str, Value] | None:
        """Tell how a guest ended, when it has."""
        handle = arguments.number("guest")
        arguments.end()
        running = self._guests.get(handle)
        if running is None or running.pid is None:
            raise EmulatorError(f"guest {handle} does not run")
        if running.end is None:
            running.waiting.append(host)
        return running.end

    def _forget(self, handle: int) -> None:
        running = self._guests.pop(handle, None)
        if running is not None and running.pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(running.pidfd, signal.SIGKILL)
            self._ended(running)


def _descriptor(host: _Stream, command: str) -> int:
    if not host.descriptors:
        raise Malformed(f"{command}: no descriptor came with it, expected the guest's channel")
    return host.descriptors.popleft()


def _end_of(pid: int) -> Mapping[str, Value]:
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return {"code": code} if code >= 0 else {"signal": -code}


def _ignored(number: int, stack: object) -> None:
    """The wake-up descriptor does what there is to do."""


def _listen(directory: Path) -> socket.socket:
    """Make the socket; it takes the place of one that a killed process left. Raises ``Unavailable``."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            (directory / SOCKET).unlink()
        home = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{home}/{SOCKET}")  # a socket's own path must be short
        finally:
            os.close(home)
        (directory / SOCKET).chmod(0o600)
        listener.listen(socket.SOMAXCONN)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise Unavailable(f"{directory / SOCKET}: {(error.strerror or 'no socket').lower()}") from None
    return listener
