"""What lies in an image and who brought it: as a list of ours, and as a bill of materials."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final

from enarx import __version__
from enarx.tenant.image._inventory import Group, Inventory, Item, Kind
from enarx.tenant.image._sbom import bill_of_materials
from enarx.tenant.image.vm._lock import Package, Wheel
from enarx.tenant.image.vm._sources import Origin, Source
from enarx.tenant.image.vm._tree import Made, Placed, Tree

SCHEMA: Final = "enarx.vm-files/1"


def file_list(tree: Tree, outside: Mapping[str, Source]) -> bytes:
    """Give every file of the first file system, and those that lie ``outside`` it, as JSON."""
    placed = [_described(f"/{path}", file) for path, file in sorted(tree.files.items())]
    beside = [
        _file(name, source.content, 0o644, Made.COPIED, source.origin)
        for name, source in sorted(outside.items())
    ]
    origins = {file.origin for file in tree.files.values()} | {source.origin for source in outside.values()}
    document = {
        "schema": SCHEMA,
        "initrd": placed,
        "beside": beside,
        "archives": sorted(
            (_archive(it) for it in origins if it is not None), key=lambda it: str(it["file"])
        ),
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def bill(tree: Tree, outside: Mapping[str, Source], licenses: Mapping[str, str]) -> bytes:
    """Give the bill of materials of the whole image as CycloneDX JSON."""
    files = {f"/{path}": (file.origin, file.entry.content) for path, file in tree.files.items()}
    files |= {name: (source.origin, source.content) for name, source in outside.items()}
    items: dict[Origin, list[Item]] = {}
    for name in sorted(files):
        origin, content = files[name]
        item = Item(name=name, size=len(content), lines=0, sha256=sha256(content).hexdigest())
        items.setdefault(origin, []).append(item)
    order = sorted(items, key=lambda it: (it is not None, isinstance(it, Package), it.name if it else ""))
    groups = tuple(_group(origin, items[origin], licenses) for origin in order)
    document = bill_of_materials(Inventory(groups=groups, openssl=tree.traced.openssl))
    return (json.dumps(document, indent=1) + "\n").encode()


def _group(origin: Origin, items: Iterable[Item], licenses: Mapping[str, str]) -> Group:
    match origin:
        case Package():
            return Group(kind=Kind.PACKAGE, name=origin.name, version=origin.version, items=tuple(items))
        case Wheel():
            license_ = licenses.get(origin.name, "")
            return Group(
                kind=Kind.DISTRIBUTION,
                name=origin.name,
                version=origin.version,
                items=tuple(items),
                license=license_,
            )
        case None:
            return Group(kind=Kind.OURS, name="enarx.tcb", version=__version__, items=tuple(items))


def _described(path: str, placed: Placed) -> dict[str, object]:
    mode = stat.S_IMODE(placed.entry.mode)
    return _file(path, placed.entry.content, mode, placed.made, placed.origin)


def _file(path: str, content: bytes, mode: int, made: Made, origin: Origin) -> dict[str, object]:
    return {
        "path": path,
        "mode": f"{mode:04o}",
        "bytes": len(content),
        "sha256": sha256(content).hexdigest(),
        "made": made.value,
        "from": "enarx" if origin is None else origin.file,
    }


def _archive(origin: Package | Wheel) -> dict[str, object]:
    described: dict[str, object] = {
        "file": origin.file,
        "name": origin.name,
        "version": origin.version,
        "sha256": origin.sha256,
    }
    if isinstance(origin, Package):
        described["architecture"] = origin.architecture
    return described
