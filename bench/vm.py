"""Keeps in virtual machines: boot to an attested keep in parts, memory, and what their door carries.

The door is measured with the image's own kernel, interpreter and door, and with a peer in the keep's place that
swallows, gives or echoes (``guests/door.py``); then the same once more without a machine, by a socket pair. Where the
machine's one processor had to wait for others, what it carries in a second of its own tells more than what passed.
"""

from __future__ import annotations

import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.integration.vm_keep import Machine, boot_files, booting, keep_image

from bench._report import line
from enarx.api.vm_image import VmImage
from enarx.host.vm import Boot, Guest, Protection, VmKeep, find_accelerator
from enarx.host.vm._door import Door
from enarx.tcb.errors import EnarxError
from enarx.tenant.image.vm._cpio import cpio, file

BOOTS: Final = 3
PINGS: Final = 500
BULK_BYTES: Final = 256 << 20
STREAMS: Final = 64
MEMORY_MIB: Final = 256
DOOR: Final = Path(__file__).parent / "guests" / "door.py"
BOOT: Final = Path(__file__).parent / "guests" / "boot.py"


def main() -> None:
    """Print all figures."""
    image = keep_image()
    print(find_accelerator().detail, flush=True)
    size = image.initrd.stat().st_size + image.kernel.stat().st_size
    line("image: ramdisk and kernel, compressed", f"{image.initrd.stat().st_size / 1e6:.1f} MB", goal="20 MB")
    line("  with the kernel", f"{size / 1e6:.1f} MB")
    boots(image, "unpacked kernel", boot_files(image))
    boots(image, "bzImage", Boot(kernel=image.kernel, initrd=image.initrd))
    with tempfile.TemporaryDirectory() as folder:
        parts(image, Path(folder))
    with tempfile.TemporaryDirectory() as folder, door(image, Path(folder)) as (machine, pid):
        carried("door", machine, pid)
    with native() as machine:
        carried("both ends natively", machine, None)


def boots(image: VmImage, name: str, files: Boot) -> None:
    """How long from QEMU's start to a keep that has attested."""
    parts: list[tuple[float, float, float, float]] = []
    memory = 0.0
    for _ in range(BOOTS):
        began = time.perf_counter()
        with booting(image, files=files, guest=Guest(cmdline=image.cmdline, memory_mib=MEMORY_MIB)) as keep:
            opened = opened_after(keep, began)
            keep.await_ready()
            ready = time.perf_counter() - began
            machine = Machine(keep.channel)
            machine.tenant().attest()
            parts.append((opened, ready, time.perf_counter() - began, processor_s(keep.pid)))
            memory = resident_mib(keep.pid)
            machine.close()
    opened, ready, attested, _ = (statistics.median(column) for column in zip(*parts, strict=True))
    best, work = (min(part[at] for part in parts) for at in (2, 3))
    line(f"{name}: QEMU to the keep's first line", f"{opened:.2f} s")
    line(f"{name}: to ready", f"{ready:.2f} s")
    line(f"{name}: to attested", f"{attested:.2f} s", goal="4 s", met=attested < 4)
    line(f"{name}: to attested, the fastest of {BOOTS}", f"{best:.2f} s", goal="4 s", met=best < 4)
    line(f"{name}: QEMU's processor time to attested, the least", f"{work:.2f} s")
    line(f"{name}: QEMU's proportional memory", f"{memory:.0f} MiB")


def opened_after(keep: VmKeep, began: float) -> float:
    """When the first process of the machine opened its port, as QEMU tells."""
    while not (keep.control and any(name == "VSERPORT_CHANGE" for name, _ in keep.control.events)):
        if keep.wait(0.005):
            raise SystemExit(f"the machine did not boot: {keep.ended}")
    return time.perf_counter() - began


def processor_s(pid: int) -> float:
    """Processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """PSS of a process."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    assert found is not None
    return int(found[1]) / 1024


def parts(image: VmImage, folder: Path) -> None:
    """Where the time of one boot goes, by the clock of the machine, which begins to run with its kernel."""
    marks = folder / "marks"
    serial = ("-chardev", f"file,id=marks,path={marks}", "-device", "isa-serial,chardev=marks")
    guest = Guest(cmdline=image.cmdline, memory_mib=MEMORY_MIB, extra=serial)
    began = time.perf_counter()
    with booting(image, files=started_by(image, BOOT, folder), guest=guest) as keep:
        opened = opened_after(keep, began)
        keep.await_ready()
        ready = time.perf_counter() - began
        machine = Machine(keep.channel)
        machine.tenant().attest()
        attested = time.perf_counter() - began
        machine.close()
    told = {
        name: int(when) / 1e6
        for when, _, name in (it.partition(" ") for it in marks.read_text().splitlines())
    }
    before = opened - told["port"]
    told |= {"the keep's process and key": ready - before, "handshake and evidence": attested - before}
    line("parts: QEMU, firmware, kernel to its clock", f"{before:.2f} s")
    last = 0.0
    for name, when in sorted(told.items(), key=lambda it: it[1]):
        line(f"parts: {name}", f"{when - last:.2f} s")
        last = when


def started_by(image: VmImage, script: Path, folder: Path) -> Boot:
    """The image with another first process. The kernel unpacks archives that follow one another."""
    initrd = folder / "initrd"
    content = image.initrd.read_bytes()
    init = b"#!/usr/bin/python3.11 -ISB\n" + script.read_bytes()
    initrd.write_bytes(content + bytes(-len(content) % 4) + cpio({"init": file(init, executable=True)}))
    return Boot(kernel=image.vmlinux, initrd=initrd)


@contextmanager
def door(image: VmImage, folder: Path) -> Iterator[tuple[Machine, int]]:
    """A machine whose first process is the peer, and QEMU's process."""
    files = started_by(image, DOOR, folder)
    keep = VmKeep(Protection.NONE, files, Guest(cmdline=image.cmdline, memory_mib=MEMORY_MIB))
    try:
        keep.await_ready()
        machine = Machine(keep.channel)
        yield machine, keep.pid
        machine.close()
    finally:
        keep.stop()


@contextmanager
def native() -> Iterator[Machine]:
    """The same two ends and the same peer in two processes of this machine."""
    port, theirs = socket.socketpair()
    agent, inner = socket.socketpair()
    with theirs:
        command = [sys.executable, str(DOOR), str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    ready = threading.Event()
    end = Door(port, inner, lambda _: ready.set())

    def serve() -> None:
        with suppress(EnarxError):
            end.serve()
        end.close()

    thread = threading.Thread(target=serve)
    thread.start()
    ready.wait()
    machine = Machine(agent)
    yield machine
    machine.close()
    thread.join()
    process.wait()


def carried(name: str, machine: Machine, pid: int | None) -> None:
    """Round trips, and bytes a second, over one stream and over many; ``pid`` is QEMU's."""
    echo = machine.connect()
    echo.sendall(b"e")
    samples = sorted(round_trip(echo) for _ in range(PINGS))
    line(f"{name}: round trip, median", f"{samples[PINGS // 2] * 1e6:.0f} us")
    line(f"{name}: round trip, 99 of 100", f"{samples[PINGS * 99 // 100] * 1e6:.0f} us")
    for way, act in (("into the machine", swallowed), ("out of the machine", given)):
        for count, goal in ((1, 80), (STREAMS, 40)):
            before = guest_s(pid)
            rate = act(machine, count) / 1e6
            taken = guest_s(pid) - before
            what = "one stream" if count == 1 else f"{count} streams"
            line(f"{name}: {way}, {what}", f"{rate:.0f} MB/s", goal=f"{goal} MB/s", met=rate >= goal)
            if taken:
                line("  in a second of the machine's processor", f"{BULK_BYTES / 1e6 / taken:.0f} MB")
    with ExitStack() as stack:
        busy = [machine.connect() for _ in range(STREAMS)]
        for sock in busy:
            stack.enter_context(sock)
            sock.sendall(b"g")
        done = threading.Event()
        readers = [threading.Thread(target=drain, args=(busy, done))]
        for reader in readers:
            reader.start()
        samples = sorted(round_trip(echo) for _ in range(PINGS // 5))
        done.set()
        readers[0].join()
    line(
        f"{name}: round trip beside {STREAMS} busy streams, median",
        f"{samples[len(samples) // 2] * 1e3:.1f} ms",
    )


def guest_s(pid: int | None) -> float:
    """Seconds that the busiest thread of a process has run, which is the processor of QEMU's machine."""
    if pid is None:
        return 0.0
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    ticks = max(sum(map(int, stat.rpartition(")")[2].split()[11:13])) for stat in stats)
    return ticks / os.sysconf("SC_CLK_TCK")


def round_trip(sock: socket.socket) -> float:
    """Seconds for one byte there and back."""
    began = time.perf_counter()
    sock.sendall(b"x")
    sock.recv(1)
    return time.perf_counter() - began


def swallowed(machine: Machine, count: int) -> float:
    """Bytes a second that the machine takes."""
    data = bytes(BULK_BYTES // count)

    def one(sock: socket.socket) -> None:
        sock.sendall(b"s")
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b"!"

    return spread(machine, count, one)


def given(machine: Machine, count: int) -> float:
    """Bytes a second that the machine gives."""

    def one(sock: socket.socket) -> None:
        sock.sendall(b"g")
        left = BULK_BYTES // count
        while left > 0:
            left -= len(sock.recv(1 << 18))

    return spread(machine, count, one)


def spread(machine: Machine, count: int, act: Callable[[socket.socket], None]) -> float:
    """Do it on so many streams at once; give bytes a second."""
    socks = [machine.connect() for _ in range(count)]
    threads = [threading.Thread(target=act, args=(sock,)) for sock in socks]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - began
    for sock in socks:
        sock.close()
    return BULK_BYTES / taken


def drain(socks: Sequence[socket.socket], done: threading.Event) -> None:
    """Read whatever comes, in turns, until told."""
    buffer = bytearray(1 << 18)
    while not done.is_set():
        for sock in socks:
            try:
                sock.recv_into(buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                os.sched_yield()


if __name__ == "__main__":
    main()
