# The first process of a VM keep, which tells on a serial line when it had done what (bench/vm.py puts it at /init).
import gc
import sys
import time

gc.disable()
MARKS = [("interpreter", time.monotonic())]
sys.path.append("/keep")
from enarx.tcb.keep.vm import __main__ as machine  # noqa: E402

gc.freeze()
gc.enable()
MARKS.append(("modules", time.monotonic()))

import os  # noqa: E402

KERNEL = {
    "Trying to unpack rootfs": "kernel",
    "Freeing initrd memory": "ramdisk",
    "Run /init": "rest of kernel",
}


def timed(name: str, label: str) -> None:
    act = getattr(machine, name)

    def done(*given: object, **named: object) -> object:
        value = act(*given, **named)
        known = any(label == it for it, _ in MARKS)  # the second port is asked for when no TEE was found
        MARKS.append(("search for a TEE" if known else label, time.monotonic()))
        if name == "load":
            tell()
        return value

    setattr(machine, name, done)


def tell() -> None:
    """Write all marks, and those of the kernel's log, in microseconds of the kernel's clock."""
    lines = [f"{int(1e6 * when)} {label}" for label, when in MARKS]
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            head, _, text = os.read(log, 8192).decode(errors="replace").partition(";")
            lines += [
                f"{head.split(',')[2]} {label}" for start, label in KERNEL.items() if text.startswith(start)
            ]
    except BlockingIOError:
        os.close(log)
    line = os.open("/dev/ttyS0", os.O_WRONLY | os.O_NOCTTY)
    os.write(line, "".join(f"{it}\n" for it in lines).encode())
    os.close(line)


for name, label in {
    "set_up": "mounts",
    "open_port": "port",
    "prepare": "engine",
    "load": "TLS rehearsal",
}.items():
    timed(name, label)
machine.main()
