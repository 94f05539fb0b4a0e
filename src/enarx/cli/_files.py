"""Files that a relying party names on the command line: evidence, collateral, policies, roots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from enarx.attest import Collateral, TrustAnchors
from enarx.attest.material import recognise_collateral
from enarx.tcb.errors import EnarxError, Malformed

MAX_FILE_BYTES: Final = 8 * 1024 * 1024
"""More than any evidence or collateral; a whole disk image named by mistake ends here."""
MAX_FILES: Final = 256


def read(path: Path) -> bytes:
    """Read one file. Raises ``Malformed`` when it is too large."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise Malformed(f"{path}: more than {MAX_FILE_BYTES} bytes")
    return data


def load_collateral(paths: Iterable[Path]) -> Collateral:
    """Take in files and the files in folders."""
    found = Collateral.none()
    for _, one in each_collateral(paths):
        found |= one
    return found


def each_collateral(paths: Iterable[Path]) -> Iterator[tuple[Path, Collateral]]:
    """Each file with what it holds; in a folder, what is no collateral is passed over."""
    for path in paths:
        for file, is_named in _files(path):
            try:
                yield file, recognise_collateral(read(file))
            except EnarxError as error:
                if is_named:
                    raise Malformed(f"{file}: {error}", hint=error.hint) from None


def load_anchors(roots: Iterable[Path]) -> TrustAnchors:
    """The vendors' roots and those in files."""
    anchors = TrustAnchors.vendor()
    for path in roots:
        try:
            anchors = anchors.adding(read(path), name=path.name)
        except Malformed as error:
            raise Malformed(f"{path}: {error}", hint=error.hint) from None
    return anchors


def _files(path: Path) -> Iterator[tuple[Path, bool]]:
    if not path.is_dir():
        yield path, True
        return
    files = sorted(file for file in path.rglob("*") if file.is_file())
    if len(files) > MAX_FILES:
        raise Malformed(f"{path}: {len(files)} files, at most {MAX_FILES} are taken in")
    yield from ((file, False) for file in files)
