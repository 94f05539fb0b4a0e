"""A strict reader of DER (X.690): definite, shortest lengths, low tag numbers, nothing trailing.

We read certificates ourselves for two reasons: AMD's have serial number zero, which libraries begin to
refuse, and vendors put structures into extensions that only we know.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Final

from enarx.attest.errors import MalformedCollateral

MAX_LENGTH_BYTES: Final = 3
"""16 MiB: more than any certificate or revocation list has."""


class Tag:
    """The universal tags that certificates use (X.680, section 8.6), with the constructed bit where it
    belongs.
    """

    # Plain numbers: to look up a member of an enumeration takes as long as to read an element.
    BOOLEAN: Final = 0x01
    INTEGER: Final = 0x02
    BIT_STRING: Final = 0x03
    OCTET_STRING: Final = 0x04
    NULL: Final = 0x05
    OID: Final = 0x06
    ENUMERATED: Final = 0x0A
    UTF8_STRING: Final = 0x0C
    PRINTABLE_STRING: Final = 0x13
    IA5_STRING: Final = 0x16
    UTC_TIME: Final = 0x17
    GENERALIZED_TIME: Final = 0x18
    SEQUENCE: Final = 0x30
    SET: Final = 0x31


BOOLEANS: Final = ((Tag.BOOLEAN, b"\x00"), (Tag.BOOLEAN, b"\xff"))
"""Tag and value of false and of true."""


class Der:
    """A cursor over the elements of one constructed value. Raises ``MalformedCollateral`` for whatever is not
    DER.
    """

    __slots__ = ("_at", "_data", "_end", "_name", "_outer")

    def __init__(self, data: bytes, *, name: str, outer: Der | None = None) -> None:
        self._data = data
        self._at = 0
        self._end = len(data)
        self._name = name
        self._outer = outer

    def bad(self, why: str) -> MalformedCollateral:
        """Make the error that says where and why."""
        name, outer = self._name, self._outer
        while outer is not None:
            name, outer = f"{outer._name}.{name}", outer._outer
        return MalformedCollateral(f"{name}: {why} at {self._at:#x}")

    def more(self) -> bool:
        """Say whether an element is left."""
        return self._at < self._end

    def peek(self) -> int | None:
        """Give the tag of the next element, or nothing at the end."""
        return self._data[self._at] if self._at < self._end else None

    def any(self) -> tuple[int, bytes, bytes]:
        """Take one element of any tag: tag, value, and the whole element as it was encoded."""
        data, start = self._data, self._at
        if self._end - start < 2:
            raise self.bad("an element is cut short")
        tag, length, at = data[start], data[start + 1], start + 2
        if tag & 0x1F == 0x1F:
            raise self.bad("a tag number above 30")
        if length & 0x80:
            count = length & 0x7F
            if not 0 < count <= MAX_LENGTH_BYTES or self._end - at < count:
                raise self.bad("a length that is indefinite, too large or cut short")
            length = int.from_bytes(data[at : at + count], "big")
            at += count
            if length < 0x80 or length >> (8 * (count - 1)) == 0:
                raise self.bad("a length that is not the shortest")
        end = at + length
        if end > self._end:
            raise self.bad(f"an element of {length} bytes where {self._end - at} are left")
        self._at = end
        return tag, data[at:end], data[start:end]

    def take(self, tag: int, field: str) -> bytes:
        """Take the value of one element that must have ``tag``."""
        data, start = self._data, self._at + 2
        if start <= self._end and data[start - 2] == tag and data[start - 1] < 0x80:  # most are short
            at = start + data[start - 1]
            if at <= self._end and tag & 0x1F != 0x1F:
                self._at = at
                return data[start:at]
        if self.peek() != tag:
            raise self.bad(f"{field} has tag {self.peek()}, expected {tag}")
        return self.any()[1]

    def inside(self, tag: int, field: str) -> Der:
        """Open a constructed element that must have ``tag``."""
        return Der(self.take(tag, field), name=field, outer=self)

    def integer(self, field: str, *, tag: int = Tag.INTEGER) -> int:
        """Take an INTEGER (or ENUMERATED) in its shortest form."""
        value = self.take(tag, field)
        if not is_shortest_integer(value):
            raise self.bad(f"{field} is not the shortest integer")
        return int.from_bytes(value, "big", signed=True)

    def small(self, field: str, *, most: int = 0xFFFF, tag: int = Tag.INTEGER) -> int:
        """Take an INTEGER from 0 to ``most``."""
        value = self.integer(field, tag=tag)
        if not 0 <= value <= most:
            raise self.bad(f"{field} is {value}, expected 0 to {most}")
        return value

    def boolean(self, field: str) -> bool:
        """Take a BOOLEAN: one byte, 0x00 or 0xFF."""
        value = self.take(Tag.BOOLEAN, field)
        if value not in (b"\x00", b"\xff"):
            raise self.bad(f"{field} is not a boolean")
        return value == b"\xff"

    def oid(self, field: str) -> str:
        """Take an OBJECT IDENTIFIER in dotted form."""
        dotted = dotted_oid(self.take(Tag.OID, field))
        if dotted is None:
            raise self.bad(f"{field} is no object identifier")
        return dotted

    def bits(self, field: str) -> bytes:
        """Take a BIT STRING of whole bytes."""
        value = self.take(Tag.BIT_STRING, field)
        if not value or value[0]:
            raise self.bad(f"{field} is not a bit string of whole bytes")
        return value[1:]

    def text(self, field: str) -> str:
        """Take a UTF8String, PrintableString or IA5String."""
        tag, value, _ = self.any()
        text = read_text(tag, value)
        if text is None:
            raise self.bad(f"{field} has tag {tag} or other characters, expected text")
        return text

    def time(self, field: str) -> datetime:
        """Take a UTCTime or GeneralizedTime in the one form that RFC 5280, section 4.1.2.5 allows."""
        tag = self.peek()
        if tag not in (Tag.UTC_TIME, Tag.GENERALIZED_TIME):
            raise self.bad(f"{field} has tag {tag}, expected a time")
        value = self.take(tag, field)
        digits = value[:-1]
        size = 12 if tag == Tag.UTC_TIME else 14
        if len(value) != size + 1 or value[-1:] != b"Z" or not digits.isdigit():
            raise self.bad(f"{field} is not a time in the form of RFC 5280")
        century = "" if size == 14 else ("19" if digits[:2] >= b"50" else "20")
        text = digits.decode()
        try:
            return datetime.fromisoformat(f"{century}{text[:-6]}T{text[-6:]}Z")
        except ValueError:
            raise self.bad(f"{field} is no time of the calendar") from None

    def end(self) -> None:
        """Raise unless everything was taken."""
        if self._at < self._end:
            raise self.bad(f"{self._end - self._at} bytes trail")


def only(data: bytes, tag: int, *, name: str) -> Der:
    """Open ``data``, which must be exactly one constructed element with ``tag``."""
    outer = Der(data, name=name)
    inner = outer.inside(tag, "outer")
    outer.end()
    return inner


def elements(data: bytes, *, name: str) -> list[tuple[int, bytes]]:
    """Read all elements of one level: tag and value of each. Raises ``MalformedCollateral``."""
    found: list[tuple[int, bytes]] = []
    at, end = 0, len(data)
    while at < end:
        tag, start = data[at], at + 2
        if start <= end and tag & 0x1F != 0x1F and (size := data[at + 1]) < 0x80:  # most are short
            at = start + size
            found.append((tag, data[start:at]))
        else:
            tag, value, whole = Der(data[at:], name=name).any()
            found.append((tag, value))
            at += len(whole)
    if at != end:
        raise MalformedCollateral(f"{name}: an element is cut short")
    return found


def read_text(tag: int, value: bytes) -> str | None:
    """Read the value of a UTF8String, PrintableString or IA5String, or give nothing if it is none."""
    if tag not in _TEXT:
        return None
    try:
        return value.decode("utf-8" if tag == Tag.UTF8_STRING else "ascii")
    except UnicodeDecodeError:
        return None


_TEXT: Final = (Tag.UTF8_STRING, Tag.PRINTABLE_STRING, Tag.IA5_STRING)


def is_shortest_integer(value: bytes) -> bool:
    """Say whether ``value`` is an INTEGER in its one form."""
    if len(value) < 2:
        return len(value) == 1
    return (value[0] != 0 or value[1] >= 0x80) and (value[0] != 0xFF or value[1] < 0x80)


@lru_cache(maxsize=256)
def dotted_oid(value: bytes) -> str | None:
    """Spell the value of an OBJECT IDENTIFIER, or give nothing if it is none."""
    if not value or value[-1] & 0x80 or len(value) > 64:
        return None
    arcs: list[int] = []
    arc = 0
    for byte in value:
        if arc == 0 and byte == 0x80:
            return None
        arc = arc << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))
