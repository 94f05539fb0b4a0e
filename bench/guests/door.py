"""What a machine runs in place of a keep when its door is measured: the real door, and a peer.

The first byte of a stream says what: ``s`` swallow all and answer, ``g`` give until it is closed, ``e`` echo. The peer
shares the machine's processor with the door, so it does as little as can be: one call for whatever there is.

Started by anybody but a kernel it serves the descriptor that its argument names instead of a machine's port.
"""

import os
import select
import socket
import sys

sys.path.append("/keep")
from enarx import __version__
from enarx.tcb.keep.lockdown import Profile, confine
from enarx.tcb.keep.vm._door import Door
from enarx.tcb.keep.vm._machine import open_port, power_off, set_up
from enarx.tcb.sallyport.items import Ready
from enarx.tcb.sallyport.socket_channel import SocketChannel

BLOCK = bytes(1 << 18)


def peer(channel: socket.socket) -> None:
    link = SocketChannel(channel)
    link.send(Ready(version=__version__))
    _, fds = link.receive()
    door = socket.socket(fileno=fds[0])
    poll, modes, socks, place = select.epoll(), {}, {}, memoryview(bytearray(1 << 18))
    poll.register(door, select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == door.fileno():
                _, got, _, _ = socket.recv_fds(door, 1, 1)
                if not got:
                    os._exit(0)
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
                elif size := sock.recv_into(place):
                    if modes[fd] == b"e":
                        sock.send(place[:size])
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


def serve(port: int) -> None:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        peer(theirs)
    theirs.close()
    os.set_blocking(port, False)
    door = Door(port, ours, pid)
    if os.getpid() == 1:
        confine(Profile.CARRIER)
    door.serve()


def main() -> None:
    if os.getpid() != 1:
        serve(int(sys.argv[1]))
        return
    set_up()
    try:
        port = open_port("org.enarx.keep", wait=True)
        assert port is not None
        serve(port)
    finally:
        power_off()


main()
