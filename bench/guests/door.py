"""What a machine runs in place of a keep when its door is measured: the real door, and a peer.

The first byte of a stream says what: ``s`` swallow all and answer, ``g`` give until it is closed, ``e`` echo.
"""

import os
import select
import socket
import sys

sys.path.append("/keep")
from enarx import __version__
from enarx.tcb.keep.vm._door import Door
from enarx.tcb.keep.vm._machine import open_port, power_off, set_up
from enarx.tcb.sallyport.items import Ready
from enarx.tcb.sallyport.socket_channel import SocketChannel

BLOCK = bytes(1 << 16)


def peer(channel: socket.socket) -> None:
    link = SocketChannel(channel)
    link.send(Ready(version=__version__))
    _, fds = link.receive()
    door = socket.socket(fileno=fds[0])
    poll, modes, socks = select.epoll(), {}, {}
    poll.register(door, select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == door.fileno():
                _, got, _, _ = socket.recv_fds(door, 1, 1)
                sock = socket.socket(fileno=got[0])
                sock.setblocking(False)
                socks[sock.fileno()] = sock
                poll.register(sock, select.EPOLLIN)
                continue
            sock = socks[fd]
            try:
                if fd not in modes:
                    modes[fd] = sock.recv(1)
                    if modes[fd] == b"g":
                        poll.modify(fd, select.EPOLLOUT)
                elif modes[fd] == b"g":
                    sock.send(BLOCK)
                elif data := sock.recv(1 << 18):
                    if modes[fd] == b"e":
                        sock.send(data)
                    continue
                else:
                    sock.send(b"!")
                    raise ConnectionResetError
            except BlockingIOError:
                pass
            except OSError:
                poll.unregister(fd)
                modes.pop(fd, None)
                socks.pop(fd).close()


def main() -> None:
    set_up()
    port = open_port("org.enarx.keep", wait=True)
    assert port is not None
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        peer(theirs)
    theirs.close()
    os.set_blocking(port, False)
    try:
        Door(port, ours, pid).serve()
    finally:
        power_off()


main()
