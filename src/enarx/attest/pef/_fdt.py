"""Flattened device trees, the envelope of ESM blobs (Devicetree Specification 0.4, chapter 5), read strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from enarx.attest.errors import MalformedEvidence
from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Reader

MAGIC: Final = 0xD00DFEED
VERSION: Final = 17
LAST_COMPATIBLE: Final = 16
HEADER_BYTES: Final = 40
_HEADER: Final = (
    "magic",
    "total size",
    "structure offset",
    "strings offset",
    "reservations offset",
    "version",
    "last compatible version",
    "boot processor",
    "strings size",
    "structure size",
)
_RESERVATIONS: Final = bytes(16)
"""The end of the list of memory reservations, of which these trees have none."""
_BEGIN_NODE, _END_NODE, _PROPERTY, _END = 1, 2, 3, 9
MAX_DEPTH: Final = 8
MAX_NODES: Final = 1024
MAX_BYTES: Final = 1 << 24
_Value = TypeVar("_Value")
_NAME: Final = re.compile(rb"[0-9a-zA-Z,._+?#@-]{1,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node: its properties, and its children by name."""

    properties: Mapping[str, bytes] = field(default_factory=dict)
    children: Mapping[str, Node] = field(default_factory=dict)

    def child(self, name: str) -> Node:
        """Give a child. Raises ``MalformedEvidence``."""
        if name not in self.children:
            raise MalformedEvidence(f"device tree: node {name} is missing")
        return self.children[name]

    def data(self, name: str, size: int | None = None) -> bytes:
        """Give a property, of exactly ``size`` bytes. Raises ``MalformedEvidence``."""
        value = self.properties.get(name)
        if value is None:
            raise MalformedEvidence(f"device tree: property {name} is missing")
        if size is not None and len(value) != size:
            raise MalformedEvidence(f"device tree: {name} has {len(value)} bytes, expected {size}")
        return value

    def text(self, name: str) -> str:
        """Give a property that is one string with its end. Raises ``MalformedEvidence``."""
        value = self.data(name)
        if not value.endswith(b"\0") or b"\0" in value[:-1] or not value.isascii():
            raise MalformedEvidence(f"device tree: {name} is no string")
        return value[:-1].decode("ascii")


def parse_fdt(data: bytes) -> Node:
    """Read a tree that fills ``data``. Raises ``MalformedEvidence``."""
    try:
        return _Parser(data).root()
    except MalformedEvidence:
        raise
    except Malformed as error:
        raise MalformedEvidence(str(error)) from None


class _Parser:
    def __init__(self, data: bytes) -> None:
        if len(data) > MAX_BYTES:
            raise MalformedEvidence(f"device tree: {len(data)} bytes, at most {MAX_BYTES} are allowed")
        header = Reader(data[:HEADER_BYTES], name="device tree")
        fields = {name: header.number(4, name, order="big") for name in _HEADER}
        if (fields["magic"], fields["version"]) != (MAGIC, VERSION):
            raise MalformedEvidence(f"device tree: magic {fields['magic']:#x}, version {fields['version']}")
        if fields["total size"] != len(data):
            raise MalformedEvidence(f"device tree: claims {fields['total size']} of {len(data)} bytes")
        if _part(data, fields["reservations offset"], len(_RESERVATIONS)) != _RESERVATIONS:
            raise MalformedEvidence("device tree: reserves memory")
        self._strings = _part(data, fields["strings offset"], fields["strings size"])
        self._in = Reader(
            _part(data, fields["structure offset"], fields["structure size"]), name="device tree structure"
        )
        self._nodes = 0

    def root(self) -> Node:
        if self._token() != _BEGIN_NODE or self._node_name():
            raise MalformedEvidence("device tree: does not begin with its root")
        root = self._node(MAX_DEPTH)
        if self._token() != _END:
            raise MalformedEvidence("device tree: something follows its root")
        self._in.end()
        return root

    def _node(self, depth: int) -> Node:
        self._nodes += 1
        if depth == 0 or self._nodes > MAX_NODES:
            raise MalformedEvidence(f"device tree: deeper than {MAX_DEPTH} or more than {MAX_NODES} nodes")
        properties: dict[str, bytes] = {}
        children: dict[str, Node] = {}
        while (token := self._token()) != _END_NODE:
            if token == _PROPERTY and not children:
                name, value = self._property()
                _add(properties, name, value)
            elif token == _BEGIN_NODE:
                child = _checked(self._node_name())
                _add(children, child, self._node(depth - 1))
            else:
                raise MalformedEvidence(f"device tree: token {token} has no place here")
        return Node(properties=properties, children=children)

    def _property(self) -> tuple[str, bytes]:
        size, at = self._token(), self._token()
        end = self._strings.find(b"\0", at)
        if at >= len(self._strings) or end < 0:
            raise MalformedEvidence(f"device tree: a property's name is outside of the strings, at {at:#x}")
        value = self._in.take(size, "property")
        self._align()
        return _checked(self._strings[at:end]), value

    def _node_name(self) -> bytes:
        name = b""
        while (byte := self._in.take(1, "node name")) != b"\0":
            name += byte
            if len(name) > 63:
                raise MalformedEvidence("device tree: a node's name is longer than 63 bytes")
        self._align()
        return name

    def _token(self) -> int:
        return self._in.number(4, "token", order="big")

    def _align(self) -> None:
        self._in.take(-self._in.offset % 4, "padding")


def _add(to: dict[str, _Value], name: str, value: _Value) -> None:
    if name in to:
        raise MalformedEvidence(f"device tree: {name} is there twice")
    to[name] = value


def _checked(name: bytes) -> str:
    if not _NAME.fullmatch(name):
        raise MalformedEvidence(f"device tree: {name!r} is no name")
    return name.decode("ascii")


def _part(data: bytes, start: int, size: int) -> bytes:
    if start < HEADER_BYTES or start % 4 or start + size > len(data):
        raise MalformedEvidence(f"device tree: {size} bytes at {start:#x} are outside of its {len(data)}")
    return data[start : start + size]


def build_fdt(root: Node) -> bytes:
    """Write a tree as it is read: properties before children, nothing reserved."""
    strings: dict[str, int] = {}
    structure = _written(root, "", strings) + _END.to_bytes(4, "big")
    names = b"".join(name.encode("ascii") + b"\0" for name in strings)
    at = HEADER_BYTES + len(_RESERVATIONS)
    header = [MAGIC, at + len(structure) + len(names), at, at + len(structure), HEADER_BYTES, VERSION]
    header += [LAST_COMPATIBLE, 0, len(names), len(structure)]
    return b"".join(number.to_bytes(4, "big") for number in header) + _RESERVATIONS + structure + names


def _written(node: Node, name: str, strings: dict[str, int]) -> bytes:
    parts = [_BEGIN_NODE.to_bytes(4, "big"), _padded(name.encode("ascii") + b"\0")]
    for key, value in node.properties.items():
        if key not in strings:
            strings[key] = sum(len(known) + 1 for known in strings)
        numbers = (_PROPERTY, len(value), strings[key])
        parts += [*(number.to_bytes(4, "big") for number in numbers), _padded(value)]
    parts += [_written(child, key, strings) for key, child in node.children.items()]
    return b"".join(parts) + _END_NODE.to_bytes(4, "big")


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
