"""``enarx collateral``: what the verification of evidence needs beside it, from the vendors' services and in files."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from enarx.attest.results import fields_document
from enarx.cli._exit import ExitCode
from enarx.cli._files import each_collateral, read
from enarx.cli._inspect import Section, collateral_sections, sections_text
from enarx.cli._main import SETTINGS, json_option
from enarx.cli._output import Output
from enarx.cli._verify import at_option
from enarx.tcb.errors import EnarxError, Malformed

DEFAULT_OUT: Final = "collateral"
_DATES: Final = (("not_before", "not_after"), ("this_update", "next_update"), ("issueDate", "nextUpdate"))
_DETAILS: Final = ("spki_sha256", "ca", "algorithm", "value")
"""What ``enarx inspect`` shows and a list of many files does not."""


@click.group(context_settings=SETTINGS)
@json_option
def collateral() -> None:
    """Fetch what evidence is verified with, and see what it is: certificates, revocation lists, TCB info.

    \b
    Examples:
      enarx collateral fetch report.bin
      enarx collateral show collateral/
    """


@collateral.command(context_settings=SETTINGS)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_OUT,
    show_default=True,
    metavar="DIR",
    help="Where to write the files.",
)
@click.option("--kds", metavar="URL", help="Ask this service in place of AMD's.")
@click.option("--pcs", metavar="URL", help="Ask this service in place of Intel's, such as a PCCS.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where answers are kept; default: collateral in $ENARX_CACHE or $XDG_CACHE_HOME/enarx.",
)
@click.option("--no-cache", is_flag=True, help="Ask for everything anew and keep nothing.")
@json_option
@click.pass_obj
def fetch(
    output: Output,
    files: tuple[Path, ...],
    out: Path,
    kds: str | None,
    pcs: str | None,
    cache: Path | None,
    no_cache: bool,
) -> ExitCode:
    """Fetch what evidence is verified with, from the services of AMD and Intel.

    What to ask for follows from the evidence: product line, chip and firmware versions of a report, platform and
    authority of a quote. Nothing is verified here; that does `enarx verify FILE --collateral DIR`, offline.

    \b
    Examples:
      enarx collateral fetch report.bin
      enarx collateral fetch quotes/*.bin --out pcs/ --pcs https://pccs.example.org:8081

    Exit codes: 0 all fetched, 3 not evidence, 4 a service gave no usable answer.
    """
    from enarx.attest.fetch import AMD_KDS, INTEL_PCS, Services, fetch_collateral

    fetched = fetch_collateral(
        [read(file) for file in files],
        now=datetime.now(UTC),
        services=Services(kds=kds or AMD_KDS, pcs=pcs or INTEL_PCS),
        cache=None if no_cache else cache or default_cache(),
        progress=output.note,
    )
    out.mkdir(parents=True, exist_ok=True)
    for file in fetched.files:
        _write(out / file.name, file.data)
    for note in fetched.notes:
        output.warning(note)
    document = {
        "out": str(out),
        "files": [
            {
                "name": file.name,
                "bytes": len(file.data),
                "url": file.url,
                "origin": file.origin.name.lower(),
            }
            for file in fetched.files
        ],
        "notes": list(fetched.notes),
    }
    lines = [f"{out / file.name}  ({file.origin.value})" for file in fetched.files]
    output.result("enarx.collateral.fetch/1", document, "\n".join(lines or ["nothing to fetch"]))
    return ExitCode.DONE


@collateral.command("show", context_settings=SETTINGS)
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@at_option
@json_option
@click.pass_obj
def show_(output: Output, paths: tuple[Path, ...], at: datetime | None) -> ExitCode:
    """Show what files of collateral are: of whom, for which platform, from when to when. Nothing is verified.

    A folder stands for the files in it; those that are no collateral are passed over.

    \b
    Examples:
      enarx collateral show collateral/
      enarx collateral show tcb-info.json --at 2025-06-01T00:00:00Z

    Exit codes: 0 shown, 3 a file that was named is no collateral.
    """
    when = at or datetime.now(UTC)
    shown: list[tuple[Path, list[Section]]] = []
    for path, found in each_collateral(paths):
        try:
            shown.append((path, [_dated(one, when) for one in collateral_sections(found)]))
        except EnarxError as error:
            raise Malformed(f"{path}: {error}", hint=error.hint) from None
    document = {
        "at": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "files": [
            {
                "file": str(path),
                "sections": [{"title": title, "fields": fields_document(rows)} for title, rows in found],
            }
            for path, found in shown
        ],
    }
    text = "\n\n".join(sections_text(str(path), found) for path, found in shown)
    output.result("enarx.collateral.show/1", document, text or "no collateral")
    return ExitCode.DONE


def default_cache() -> Path:
    """Where answers are kept unless another place is named."""
    from enarx.cli._run import default_cache_dir

    return Path(os.environ.get("ENARX_CACHE") or default_cache_dir(), "collateral")


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, also where another process reads or writes the folder."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        fresh.write_bytes(data)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _dated(section: Section, now: datetime) -> Section:
    """A section with its status first and without details."""
    title, rows = section
    kept = {
        name: value
        for name, value in rows.items()
        if name not in _DETAILS and not name.startswith("extension ")
    }
    return title, {"status": _status(rows, now), **kept}


def _status(rows: Mapping[str, object], now: datetime) -> str:
    for first, last in _DATES:
        if first in rows and last in rows:
            start, end = _time(rows[first]), _time(rows[last])
            if start is None or end is None:
                return "without usable dates"
            if now < start:
                return f"not yet in date, begins on {start:%Y-%m-%d}"
            return f"{'in date until' if now <= end else 'ended on'} {end:%Y-%m-%d}"
    return "without dates"


def _time(value: object) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    return value if isinstance(value, datetime) and value.tzinfo else None
