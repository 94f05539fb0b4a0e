"""The keep's half: what it asks of the host, and how it distrusts each answer (docs/spec/sallyport.md, 4)."""

from __future__ import annotations

from enarx.tcb.errors import ProtocolViolation
from enarx.tcb.sallyport.items import Admit, Connect, Deliver, Item, Listen, Opened, Refused
from enarx.tcb.sallyport.limits import MAX_DESCRIPTORS


class Guest:
    """Requests out, checked answers in; no I/O. After ``ProtocolViolation`` the keep must end.

    ``sockets`` says whether descriptors travel beside items (a process keep) or never do.
    """

    def __init__(self, *, sockets: bool) -> None:
        self._sockets = sockets
        self._delivered = False
        self._last = 0
        self._pending: dict[int, Listen | Connect] = {}

    @property
    def pending(self) -> bool:
        """Whether an answer is still to come."""
        return bool(self._pending)

    def listen(self, address: str, port: int) -> Listen:
        """Ask for a listener, under a request number never used before."""
        self._last += 1
        self._pending[self._last] = item = Listen(request=self._last, address=address, port=port)
        return item

    def connect(self, host: str, port: int) -> Connect:
        """Ask for a connection, under a request number never used before."""
        self._last += 1
        self._pending[self._last] = item = Connect(request=self._last, host=host, port=port)
        return item

    def delivered(self, item: Item, descriptors: int) -> Deliver:
        """Check the delivery (4.2): the host's first item, exactly once, with the three standard streams."""
        if not isinstance(item, Deliver) or self._delivered:
            raise ProtocolViolation(f"host sent {type(item).__name__} where the one delivery is expected")
        self._count("a delivery", descriptors, MAX_DESCRIPTORS if self._sockets else 0)
        self._delivered = True
        return item

    def admitted(self, item: Item, descriptors: int) -> None:
        """Check the admission (4.2), which an attested keep gets instead of a delivery, with the door beside it."""
        if not isinstance(item, Admit) or self._delivered:
            raise ProtocolViolation(f"host sent {type(item).__name__} where the admission is expected")
        self._count("an admission", descriptors, 1 if self._sockets else 0)
        self._delivered = True

    def answered(self, item: Item, descriptors: int) -> tuple[Listen | Connect, Opened | Refused]:
        """Match an answer with its request (4.3); each request is answered once."""
        if not isinstance(item, Opened | Refused):
            raise ProtocolViolation(f"host sent {type(item).__name__} where an answer is expected")
        request = self._pending.pop(item.request, None)
        if request is None:
            raise ProtocolViolation(f"host answered request {item.request}, which is not open")
        sockets = int(isinstance(item, Opened) and self._sockets)
        self._count(f"the answer to request {item.request}", descriptors, sockets)
        if isinstance(item, Opened) and request.port not in (0, item.port):
            raise ProtocolViolation(f"host opened port {item.port}, asked was {request.port}")
        return request, item

    def _count(self, beside: str, found: int, expected: int) -> None:
        if found != expected:
            raise ProtocolViolation(f"host sent {found} descriptors beside {beside}, expected {expected}")
