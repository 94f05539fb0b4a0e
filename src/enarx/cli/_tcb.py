"""``enarx tcb``: everything that must be trusted inside a keep, and how much that is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from enarx.cli._exit import ExitCode
from enarx.cli._main import SETTINGS, json_option
from enarx.cli._output import Output

if TYPE_CHECKING:
    from enarx.tenant.image import Group, Inventory

HEAD = f"{'lines':>8}  {'bytes':>11}  {'sha-256':<12}  name"


@click.command(context_settings=SETTINGS)
@click.option("--sbom", is_flag=True, help="Give a CycloneDX 1.6 bill of materials.")
@json_option
@click.pass_obj
def tcb(output: Output, sbom: bool) -> ExitCode:
    """List every file and library that is trusted inside a keep: ours, our dependencies', the machine's.

    Lines are those of Python files that are not blank. --json names every single file.

    \b
    Examples:
      enarx tcb
      enarx tcb --json | jq .totals
      enarx tcb --sbom > keep.cdx.json
    """
    from enarx.tenant.image import bill_of_materials, take_inventory

    inventory = take_inventory()
    if sbom:
        print(json.dumps(bill_of_materials(inventory), indent=2), flush=True)
    else:
        output.result("enarx.tcb/1", _document(inventory), _text(inventory))
    return ExitCode.DONE


def _document(inventory: Inventory) -> dict[str, object]:
    return {
        "groups": [
            {
                "kind": group.kind.value,
                "name": group.name,
                "version": group.version or None,
                "files": [
                    {"name": item.name, "bytes": item.size, "lines": item.lines, "sha256": item.sha256}
                    for item in group.items
                ],
            }
            for group in inventory.groups
        ],
        "openssl": inventory.openssl,
        "totals": {whose: _total(groups) for whose, groups in _parts(inventory).items()},
    }


def _parts(inventory: Inventory) -> dict[str, list[Group]]:
    from enarx.tenant.image import Kind

    return {"ours": inventory.of(Kind.OURS), "theirs": inventory.of(*set(Kind) - {Kind.OURS})}


def _total(groups: Sequence[Group]) -> dict[str, int]:
    return {
        "files": sum(len(group.items) for group in groups),
        "bytes": sum(group.size for group in groups),
        "lines": sum(group.lines for group in groups),
    }


def _text(inventory: Inventory) -> str:
    """Show every file of ours; of the others each group, with the native libraries in it."""
    parts = _parts(inventory)
    lines = ["Ours", HEAD]
    for group in parts["ours"]:
        lines += [_line(item.lines, item.size, item.sha256, item.name) for item in group.items]
    lines += ["", "Theirs", HEAD]
    for group in parts["theirs"]:
        single = group.items[0] if len(group.items) == 1 else None
        title = f"{group.name} {group.version}".strip()
        count = "" if single else f" ({len(group.items)} files)"
        lines.append(_line(group.lines, group.size, single.sha256 if single else "", f"{title}{count}"))
        if not single:
            lines += [
                _line(0, it.size, it.sha256, f"  {it.name.rpartition('/')[2]}")
                for it in group.items
                if it.native
            ]
    lines += ["", f"cryptography's OpenSSL, which ends TLS: {inventory.openssl}"]
    for whose, groups in parts.items():
        total = _total(groups)
        lines.append(f"{whose}: {total['lines']:,} lines, {total['bytes']:,} bytes in {total['files']} files")
    return "\n".join(lines)


def _line(lines: int, size: int, digest: str, name: str) -> str:
    return f"{lines or '':>8}  {size:>11}  {digest[:12]:<12}  {name}"
