"""Where a process keep begins. The host starts it with its end of the channel as descriptor 3 and nothing else.

    --component=BYTES,FILES  the workload will be a WASI 0.2 component, whose files may be so large and so many
    --network                the workload will have sockets: load what they need while loading is still possible
    --require-sandbox        do not live with a layer of the sandbox missing
    --serve                  be a fork server: make keeps on request (``zygote``)

The options say what to have ready; none of them is needed for safety, and the delivery is judged by itself.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Final

from enarx.tcb.keep.boot import Keep
from enarx.tcb.keep.confinement import confined_child
from enarx.tcb.keep.lockdown import Profile, isolate
from enarx.tcb.keep.runner import prepare
from enarx.tcb.sallyport.socket_channel import SocketChannel

CHANNEL_FD: Final = 3


def main() -> None:
    """Become a keep, or a server that makes keeps; never returns."""
    options = dict(option.partition("=")[::2] for option in sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sock = socket.socket(fileno=CHANNEL_FD)
    serves = "--serve" in options
    if serves or "--network" in options:
        import enarx.tcb.keep.network  # noqa: F401 (to have it before the lock-down)
    runtime = prepare(parallel=not serves)
    if serves:
        from enarx.tcb.keep.zygote import serve

        serve(sock, runtime)
        os._exit(0)
    profile, room = Profile.MODULE, {}
    if "--component" in options:
        profile = Profile.COMPONENT
        work_bytes, work_files = map(int, options["--component"].split(","))
        room = {"work_bytes": work_bytes, "work_files": work_files}
    isolated = isolate(profile, **room)
    keep = Keep(SocketChannel(sock), runtime)
    confined_child(keep, profile, isolated, required="--require-sandbox" in options)


if __name__ == "__main__":
    main()
