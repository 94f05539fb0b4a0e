"""Where a process keep begins. The host starts it with its end of the channel as descriptor 3 and nothing else.

    --component        the workload will be a WASI 0.2 component, which the sandbox treats differently
    --tls              the workload will use TLS: load it while loading is still possible
    --require-sandbox  do not start with a layer of the sandbox missing
    --serve            be a fork server: make keeps on request (``zygote``)

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
from enarx.tcb.keep.lockdown import Profile
from enarx.tcb.keep.runner import prepare
from enarx.tcb.sallyport.socket_channel import SocketChannel

CHANNEL_FD: Final = 3


def main() -> None:
    """Become a keep, or a server that makes keeps; never returns."""
    options = set(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sock = socket.socket(fileno=CHANNEL_FD)
    if "--tls" in options or "--serve" in options:
        import enarx.tcb.keep.tls  # noqa: F401 (to have it before the lock-down)
    runtime = prepare(parallel="--serve" not in options)
    if "--serve" in options:
        from enarx.tcb.keep.zygote import serve

        serve(sock, runtime)
    else:
        profile = Profile.COMPONENT if "--component" in options else Profile.MODULE
        keep = Keep(SocketChannel(sock), runtime)
        confined_child(keep, profile, required="--require-sandbox" in options)
    os._exit(0)


if __name__ == "__main__":
    main()
