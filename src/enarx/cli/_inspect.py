"""``enarx inspect``: show what is inside evidence or collateral, without judging it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from enarx.attest import Collateral, Kind, MalformedEvidence, bundle, cmw
from enarx.attest._verifier import recognise
from enarx.attest.azure import parse_hcl_report
from enarx.attest.azure._hcl import MAGIC as HCL_MAGIC
from enarx.attest.azure._hcl import ReportType
from enarx.attest.chain import parse_revocation_list
from enarx.attest.checks import show
from enarx.attest.der import elements, read_text
from enarx.attest.material import recognise_collateral
from enarx.attest.registry import BUILTIN
from enarx.attest.results import fields_document
from enarx.attest.snp import parse_evidence
from enarx.attest.snp._certs import read_endorsement
from enarx.attest.x509 import Certificate, name_attributes, parse_certificate
from enarx.cli._exit import ExitCode
from enarx.cli._files import read
from enarx.cli._main import SETTINGS, json_option
from enarx.cli._output import Output
from enarx.tcb.errors import Malformed

COMMENT: Final = "2.16.840.1.113730.1.13"
"""What an authority tells people; an emulated one says there that it is none."""
Section = tuple[str, Mapping[str, object]]
"""A title, and what is under it by name."""


@click.command(context_settings=SETTINGS)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@json_option
@click.pass_obj
def inspect(output: Output, files: tuple[Path, ...]) -> ExitCode:
    """Show evidence, certificates and other collateral in readable form. Nothing is verified.

    The format is recognised by content: reports and quotes of every TEE, envelopes, certificates with the vendors'
    extensions, revocation lists, TCB info, event logs.

    \b
    Examples:
      enarx inspect report.bin
      enarx inspect vcek.der --json
    """
    shown = [(str(file), sections(read(file), str(file))) for file in files]
    document = {
        "files": [
            {
                "file": name,
                "sections": [{"title": title, "fields": fields_document(rows)} for title, rows in found],
            }
            for name, found in shown
        ]
    }
    output.result(
        "enarx.inspect/1", document, "\n\n".join(sections_text(name, found) for name, found in shown)
    )
    return ExitCode.DONE


def sections(data: bytes, name: str) -> list[Section]:
    """Say what ``data`` is and what it holds. Raises ``Malformed`` when it is nothing we know."""
    tees = tuple(BUILTIN.values())
    if data.startswith(HCL_MAGIC):
        return _hcl_report(data)
    try:
        tee, opened = recognise(data, tees)
    except MalformedEvidence:
        if cmw.looks_like(data) and (found := _envelope(data)):
            return found
    else:
        found = [(f"{tee.name} evidence (not verified)", tee.parse(opened).fields())]
        attached = getattr(tee.parse(opened), "certificates", ())
        if attached and all(isinstance(item, bytes) for item in attached):
            found += collateral_sections(Collateral(certificates=tuple(attached)))
        carried = bundle.unpack(data)[1]
        return found + (collateral_sections(carried) if carried else [])
    try:
        return collateral_sections(recognise_collateral(data))
    except Malformed as error:
        raise Malformed(f"{name}: {error}", hint=error.hint) from None


def _hcl_report(data: bytes) -> list[Section]:
    """What a virtual TPM of Azure keeps: no evidence without a quote, but worth to be looked at."""
    report = parse_hcl_report(data)
    found: list[Section] = [("HCL report of Azure (not verified)", report.fields())]
    if report.report_type is ReportType.SNP:
        found.append(("snp evidence (not verified)", parse_evidence(report.hardware).fields()))
    return found


def _envelope(data: bytes) -> list[Section]:
    try:
        message = cmw.parse(data)
    except Malformed:
        return []
    if isinstance(message, cmw.Record):
        return [("envelope (CMW)", {"type": message.type, "value": message.value})]
    return [
        (
            f"envelope (CMW collection{' ' + message.type if message.type else ''})",
            {
                label: item.value if isinstance(item, cmw.Record) else "a collection"
                for label, item in message.items.items()
            },
        )
    ]


def collateral_sections(collateral: Collateral) -> list[Section]:
    """Say what each piece is and what it holds."""
    found: list[Section] = [_certificate(parse_certificate(der)) for der in collateral.certificates]
    for der in collateral.crls:
        crl = parse_revocation_list(der)
        rows = {"issuer": _name(crl.issuer), "this_update": crl.this_update, "next_update": crl.next_update}
        found.append(
            ("revocation list", {**rows, "algorithm": crl.algorithm.name, "revoked": sorted(crl.revoked)})
        )
    for document in collateral.documents:
        found.append((document.kind.value, _document(document.kind, document.data)))
    return found


def _certificate(certificate: Certificate) -> Section:
    rows: dict[str, object] = {
        "subject": _name(certificate.subject),
        "issuer": _name(certificate.issuer),
        "serial": certificate.serial,
        "not_before": certificate.not_before,
        "not_after": certificate.not_after,
        "ca": certificate.is_ca,
        "algorithm": certificate.algorithm.name,
        "spki_sha256": certificate.spki_sha256,
    }
    if (remark := certificate.extensions.get(COMMENT)) is not None:
        rows["comment"] = _text(remark.value)
    endorsement = read_endorsement(certificate)
    if endorsement is not None:
        rows |= {"product": endorsement.product, "hwid": endorsement.hwid, "csp_id": endorsement.csp_id}
        rows |= {f"tcb.{part}": value for part, value in endorsement.tcb.components().items()}
    else:
        others = {oid: one for oid, one in certificate.extensions.items() if oid != COMMENT}
        rows |= {f"extension {oid}": extension.value for oid, extension in others.items()}
    return "certificate", rows


def _text(value: bytes) -> str | bytes:
    """The one text in an extension, or what it has instead."""
    try:
        [(tag, text)] = elements(value, name="comment")
    except (Malformed, ValueError):
        return value
    found = read_text(tag, text)
    return value if found is None else found


def _document(kind: Kind, data: bytes) -> dict[str, object]:
    """A summary; the TEE's own parser says more where there is one."""
    if kind in (Kind.TCB_INFO, Kind.QE_IDENTITY):
        import json

        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            raise Malformed("not JSON") from None
        inner = (
            next((value for value in body.values() if isinstance(value, dict)), {})
            if isinstance(body, dict)
            else {}
        )
        rows: dict[str, object] = {
            name: value for name, value in inner.items() if isinstance(value, str | int)
        }
        return {**rows, "levels": _statuses(inner.get("tcbLevels"))}
    return {"bytes": len(data), "value": data[:64]}


def _statuses(levels: object) -> str:
    """How often each status occurs, in the order of the levels."""
    listed = (
        [one.get("tcbStatus") for one in levels if isinstance(one, dict)] if isinstance(levels, list) else []
    )
    return ", ".join(f"{count} {status}" for status, count in Counter(map(str, listed)).items())


def _name(der: bytes) -> str:
    short = {
        "2.5.4.3": "CN",
        "2.5.4.6": "C",
        "2.5.4.7": "L",
        "2.5.4.8": "ST",
        "2.5.4.10": "O",
        "2.5.4.11": "OU",
    }
    return ", ".join(f"{short.get(oid, oid)}={value}" for oid, value in name_attributes(der))


def sections_text(name: str, found: list[Section]) -> str:
    """Write sections for people, below the name of their file."""
    lines = [name]
    for title, rows in found:
        width = max((len(field) for field in rows), default=0)
        lines += ["", title, *(f"  {field:<{width}}  {show(value)}" for field, value in rows.items())]
    return "\n".join(lines)
