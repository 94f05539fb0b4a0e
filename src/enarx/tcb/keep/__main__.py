"""Where a process keep begins. The host starts it with its end of the channel as descriptor 3 and nothing else; a
platform that measured it gives it also its port, as descriptor 4.

When it has loaded what every keep needs, it reads its launch line from the channel, words separated by spaces:

    --component=BYTES,FILES  the workload will be a WASI 0.2 component, whose files may be so large and so many
    --config                 the workload will have a configuration: load what reads it
    --network                the workload will have sockets: load what they need while loading is still possible
    --require-sandbox        do not live with a layer of the sandbox missing
    --attested               prove to a tenant what this is, and take the workload from no one else
    --serve                  be a fork server: make keeps on request (``zygote``)

The options say what to have ready; none of them is needed for safety, and the delivery is judged by itself.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import Final

from enarx.tcb.keep.boot import Keep
from enarx.tcb.keep.confinement import Resident, confined_child
from enarx.tcb.keep.lockdown import Profile, isolate
from enarx.tcb.keep.runner import prepare
from enarx.tcb.sallyport.socket_channel import SocketChannel

CHANNEL_FD: Final = 3
PORT_FD: Final = 4
MAX_LAUNCH_LINE: Final = 256


def main() -> None:
    """Become a keep, or a server that makes keeps; never returns."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sock = socket.socket(fileno=CHANNEL_FD)
    runtime = prepare()
    options = dict(option.partition("=")[::2] for option in _launch_line(sock).split())
    if "--serve" in options:
        from enarx.tcb.keep.network import load
        from enarx.tcb.keep.zygote import serve

        load()
        serve(sock, runtime, attested="--attested" in options)
        os._exit(0)
    profile, room = Profile.MODULE, {}
    if options.keys() & {"--network", "--attested"}:
        from enarx.tcb.keep.network import load

        load()
    if "--config" in options:
        import tomllib  # noqa: F401 (to have it before the lock-down)
    if "--component" in options:
        from enarx.tcb.keep import components  # noqa: F401 (to have it before the lock-down)

        profile = Profile.COMPONENT
        work_bytes, work_files = map(int, options["--component"].split(","))
        room = {"work_bytes": work_bytes, "work_files": work_files}
    channel, required = SocketChannel(sock), "--require-sandbox" in options
    keep: Resident = Keep(channel, runtime, required=required)
    if "--attested" in options:
        from enarx.tcb.keep.attested import AttestedKeep

        keep = AttestedKeep(channel, PORT_FD, runtime, required=required)
    confined_child(keep, profile, isolate(profile, **room))


def _launch_line(sock: socket.socket) -> str:
    """Read up to the end of the line and no byte further: what follows is for the keep."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte or len(line) == MAX_LAUNCH_LINE:
            os._exit(0)  # the host is gone, or talks nonsense
        line += byte
    return line.decode("ascii", "replace")


if __name__ == "__main__":
    main()
