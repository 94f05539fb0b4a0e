"""Quotes, PCK extensions and Intel's documents are read strictly: what is not exactly in form is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.forge.dcap import (
    AUTH_DATA,
    COMPONENTS,
    FMSPC,
    PCE_SVN,
    PPID,
    Forged,
    document,
    item,
    module,
    pck,
    pck_ca,
    pem,
    qe_identity,
    root,
    sgx_extension,
    sgx_items,
    svn_level,
    tcb_info,
    tcb_items,
    tcb_level,
    tlv,
)

from enarx.attest import MalformedCollateral, MalformedEvidence
from enarx.attest.dcap import (
    BodyType,
    CertificationType,
    SgxType,
    TeeType,
    looks_like_quote,
    parse_enclave_report,
    parse_pck,
    parse_pck_chain,
    parse_qe_identity,
    parse_quote,
    parse_tcb_info,
)
from enarx.attest.dcap._enclave import ENCLAVE_REPORT
from enarx.attest.x509 import parse_certificate
from enarx.tcb.errors import Malformed

# Quotes


def test_every_part_of_a_quote_is_found() -> None:
    forged = Forged(version=5, tee="TDX", body_type=3, trailing=bytes(7))
    quote = parse_quote(forged.raw)
    assert (quote.version, quote.tee_type, quote.body_type) == (5, TeeType.TDX, BodyType.TD_1_5)
    assert quote.signed == forged.raw[: 48 + 6 + 648]
    assert quote.qe_auth_data == AUTH_DATA
    assert quote.certification_type is CertificationType.PCK_CHAIN
    assert quote.certification_data.startswith(b"-----BEGIN")
    assert quote.trailing == bytes(7)
    assert quote.fields()["qe.isv_svn"] == 4


@pytest.mark.parametrize("version", [0, 1, 2, 6, 0xFFFF])
def test_other_versions_are_refused(version: int) -> None:
    raw = version.to_bytes(2, "little") + Forged().raw[2:]
    with pytest.raises(MalformedEvidence, match="version"):
        parse_quote(raw)
    assert not looks_like_quote(raw, TeeType.SGX)


@pytest.mark.parametrize("key_type", [0, 1, 3, 4])
def test_other_attestation_keys_are_refused(key_type: int) -> None:
    """A18: 3 is P-384, whose sizes differ; nobody makes such quotes."""
    with pytest.raises(MalformedEvidence, match="attestation key"):
        parse_quote(Forged(key_type=key_type).raw)


@pytest.mark.parametrize(("version", "tee_type"), [(3, 0x81), (4, 1), (5, 0x82), (4, 0x100)])
def test_other_tee_types_are_refused(version: int, tee_type: int) -> None:
    with pytest.raises(MalformedEvidence, match="TEE type"):
        parse_quote(Forged(version=version, tee_type=tee_type).raw)


def test_a_version_with_the_body_of_another_is_refused() -> None:
    """The recipe of the manifest: version 4 in the header of a quote of version 3, and the reverse."""
    for made, claimed in ((3, 4), (4, 3), (4, 5), (5, 4), (3, 5)):
        raw = claimed.to_bytes(2, "little") + Forged(version=made).raw[2:]
        with pytest.raises(Malformed):
            parse_quote(raw)


def test_body_and_tee_type_must_agree() -> None:
    for forged in (
        Forged(version=5, tee="TDX", body_type=1, raw_body=bytes(384)),
        Forged(version=5, tee="SGX", body_type=2, raw_body=bytes(584)),
    ):
        with pytest.raises(MalformedEvidence, match="body of type"):
            parse_quote(forged.raw)


@pytest.mark.parametrize("outer", [0, 1, 5, 7])
def test_later_versions_wrap_the_report_of_the_quoting_enclave(outer: int) -> None:
    with pytest.raises(MalformedEvidence, match="expected 6"):
        parse_quote(Forged(version=4, outer_type=outer).raw)


@pytest.mark.parametrize("kind", [0, 8, 0xFFFF])
def test_certification_data_of_unknown_types_is_refused(kind: int) -> None:
    with pytest.raises(MalformedEvidence, match="certification data"):
        parse_quote(Forged(certification_type=kind).raw)


def test_lengths_inside_are_exact() -> None:
    """Each of the lengths, one more and one less: what is inside must fill what is around it."""
    for version, places in (
        (3, ((432, 4), (1012, 2), (1048, 4))),
        (4, ((432, 4), (566, 4), (1018, 2), (1054, 4))),
    ):
        raw = Forged(version=version).raw
        for at, size in places:
            true = int.from_bytes(raw[at : at + size], "little")
            for wrong in (true - 1, true + 1, 0, (1 << 8 * size) - 1):
                changed = raw[:at] + wrong.to_bytes(size, "little") + raw[at + size :]
                with pytest.raises(Malformed):
                    parse_quote(changed)


def test_certification_data_has_a_limit() -> None:
    with pytest.raises(MalformedEvidence, match="at most"):
        parse_quote(Forged(certification=bytes(32 * 1024 + 1)).raw)


@pytest.mark.parametrize("gap", ENCLAVE_REPORT.reserved)
def test_reserved_bytes_of_a_report_are_zero(gap: range) -> None:
    for at in (gap.start, gap.stop - 1):
        raw = bytearray(384)
        raw[at] = 1
        with pytest.raises(Malformed, match="reserved"):
            parse_enclave_report(bytes(raw))


# PCK certificates


def test_every_part_of_the_extension_is_found() -> None:
    found = parse_pck(parse_certificate(pck().der))
    assert (found.ppid, found.components, found.pce_svn, found.fmspc) == (PPID, COMPONENTS, PCE_SVN, FMSPC)
    assert found.sgx_type is SgxType.SCALABLE
    assert (found.platform_instance_id, found.smt, found.cached_keys) == (bytes(16), True, True)
    assert found.fields()["dynamic_platform"] is True


def with_extension(extension: bytes) -> None:
    parse_pck(parse_certificate(pck(extension=extension).der))


def test_items_may_be_in_any_order() -> None:
    with_extension(tlv(0x30, *reversed(sgx_items())))
    with_extension(sgx_extension(tcb=tcb_items()[::-1]))
    large = sgx_extension(pce_svn=0xFFFF, components=b"\xff" * 16)
    assert parse_pck(parse_certificate(pck(extension=large).der)).components == b"\xff" * 16


def without_item(at: int) -> bytes:
    return tlv(0x30, *sgx_items()[:at], *sgx_items()[at + 1 :])


def without_tcb_item(at: int) -> bytes:
    return sgx_extension(tcb=tcb_items()[:at] + tcb_items()[at + 1 :])


MALFORMED: dict[str, Callable[[], bytes]] = {
    **{f"item {at + 1} is missing": partial(without_item, at) for at in range(5)},
    **{f"TCB item {at + 1} is missing": partial(without_tcb_item, at) for at in range(18)},
    "an item occurs twice": lambda: tlv(0x30, *sgx_items(), sgx_items()[0]),
    "a TCB item occurs twice": lambda: sgx_extension(tcb=[*tcb_items(), tcb_items()[3]]),
    "an unknown item": lambda: tlv(0x30, *sgx_items(), item(b"\x08", tlv(4, b""))),
    "an item of another arc": lambda: tlv(0x30, *sgx_items(), tlv(0x30, tlv(6, b"\x2a\x03"), tlv(4, b""))),
    "an empty OID": lambda: tlv(0x30, *sgx_items(), tlv(0x30, tlv(6), tlv(4, b""))),
    "an unknown TCB item": lambda: sgx_extension(tcb=[*tcb_items(), item(b"\x02\x13", tlv(2, b"\x00"))]),
    "a short PPID": lambda: sgx_extension(ppid=bytes(15)),
    "a long FMSPC": lambda: sgx_extension(fmspc=bytes(7)),
    "a short PCE-ID": lambda: sgx_extension(pce_id=bytes(1)),
    "a long CPUSVN": lambda: sgx_extension(cpu_svn=bytes(17)),
    "a short instance id": lambda: sgx_extension(instance=bytes(15)),
    "a component above 255": lambda: sgx_extension(
        tcb=[item(b"\x02\x01", tlv(2, b"\x01\x00")), *tcb_items()[1:]]
    ),
    "a negative component": lambda: sgx_extension(tcb=[item(b"\x02\x01", tlv(2, b"\xff")), *tcb_items()[1:]]),
    "a PCESVN above 65535": lambda: sgx_extension(pce_svn=0x10000),
    "an unknown SGX type": lambda: sgx_extension(sgx_type=3),
    "bytes after a value": lambda: tlv(
        0x30,
        tlv(0x30, tlv(6, bytes.fromhex("2a864886f84d010d0101")), tlv(4, PPID), b"\x05\x00"),
        *sgx_items()[1:],
    ),
    "bytes after a component": lambda: sgx_extension(
        tcb=[
            tlv(0x30, tlv(6, bytes.fromhex("2a864886f84d010d010201")), b"\x02\x01\x00", b"\x05\x00"),
            *tcb_items()[1:],
        ]
    ),
    "an unknown bit": lambda: sgx_extension(bits={4: True}),
    "bytes after the list": lambda: sgx_extension() + b"\x00",
    "not a list": lambda: tlv(4, b"\x00"),
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("why", MALFORMED)
def test_extensions_that_are_not_in_form_are_refused(why: str) -> None:
    with pytest.raises(MalformedCollateral):
        with_extension(MALFORMED[why]())


def test_a_certificate_without_the_extension_is_no_pck() -> None:
    with pytest.raises(MalformedCollateral, match="no SGX extension"):
        parse_pck(parse_certificate(pck_ca().der))


CHAIN = [pck().der, pck_ca().der, root().der]
CHAINS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "only the leaf": lambda: pem(CHAIN[0]),
    "two": lambda: pem(*CHAIN[:2]),
    "four": lambda: pem(*CHAIN, CHAIN[2]),
    "DER": lambda: b"".join(CHAIN),
    "text before": lambda: b"x" + pem(*CHAIN),
    "text between": lambda: pem(CHAIN[0]) + b"x\n" + pem(*CHAIN[1:]),
    "text after": lambda: pem(*CHAIN) + b"x",
    "two zeros after": lambda: pem(*CHAIN) + bytes(2),
    "a zero between": lambda: pem(CHAIN[0]) + b"\0" + pem(*CHAIN[1:]),
    "spaces": lambda: pem(*CHAIN).replace(b"\n", b" \n"),
    "a key": lambda: pem(*CHAIN).replace(b"CERTIFICATE", b"PUBLIC KEY"),
    "no end": lambda: pem(*CHAIN)[:-10],
    "base64 of another length": lambda: pem(*CHAIN).replace(b"\n-----END", b"A\n-----END", 1),
    "bits behind the last byte": lambda: (
        b"-----BEGIN CERTIFICATE-----\nMB==\n-----END CERTIFICATE-----\n" * 3
    ),
    "no certificate inside": lambda: pem(b"\x30\x00", *CHAIN[1:]),
}


@pytest.mark.parametrize("why", CHAINS)
def test_chains_that_are_not_in_form_are_refused(why: str) -> None:
    with pytest.raises(MalformedCollateral):
        parse_pck_chain(CHAINS[why]())


def test_line_ends_of_either_kind_are_read() -> None:
    assert parse_pck_chain(pem(*CHAIN).replace(b"\n", b"\r\n")).others == tuple(CHAIN[1:])
    assert parse_pck_chain(pem(*CHAIN).rstrip(b"\n") + b"\0").pck is not None


# Documents


def info(**changes: Any) -> bytes:
    return document("tcbInfo", tcb_info("TDX", **changes))


def identity(**changes: Any) -> bytes:
    return document("enclaveIdentity", qe_identity("SGX", **changes))


@pytest.mark.parametrize("name", [name for name in tcb_info("TDX") if name != "tdxModuleIdentities"])
def test_every_member_of_a_tcb_info_is_needed(name: str) -> None:
    parse_tcb_info(info())
    with pytest.raises(MalformedCollateral):
        parse_tcb_info(info(**{name: None}))


@pytest.mark.parametrize("name", qe_identity("SGX"))
def test_every_member_of_an_identity_is_needed(name: str) -> None:
    parse_qe_identity(identity())
    with pytest.raises(MalformedCollateral):
        parse_qe_identity(identity(**{name: None}))


def without(level: dict[str, Any], *path: str) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(level))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return copy


BAD_INFO: dict[str, dict[str, Any]] = {
    "version 1": {"version": 1},
    "version 4": {"version": 4},
    "version in text": {"version": "3"},
    "version as a truth": {"version": True},
    "another TEE": {"id": "SEV"},
    "another TCB type": {"tcbType": 1},
    "a short FMSPC": {"fmspc": "00A06D0800"},
    "an FMSPC with spaces": {"fmspc": "00 A0 6D 08"},
    "an FMSPC that is no hex": {"fmspc": "00A06D08000G"},
    "a negative number": {"tcbEvaluationDataNumber": -1},
    "a number with a fraction": {"tcbEvaluationDataNumber": 17.0},
    "no levels": {"tcbLevels": []},
    "levels that are no list": {"tcbLevels": {}},
    "a level that is no object": {"tcbLevels": [1]},
    "a level without tcb": {"tcbLevels": [without(tcb_level(), "tcb")]},
    "a level without date": {"tcbLevels": [without(tcb_level(), "tcbDate")]},
    "a level without status": {"tcbLevels": [without(tcb_level(), "tcbStatus")]},
    "a level without PCESVN": {"tcbLevels": [without(tcb_level(), "tcb", "pcesvn")]},
    "a level without SGX components": {"tcbLevels": [without(tcb_level(), "tcb", "sgxtcbcomponents")]},
    "a level without TDX components": {"tcbLevels": [without(tcb_level(), "tcb", "tdxtcbcomponents")]},
    "fifteen components": {"tcbLevels": [tcb_level(sgx=bytes(15))]},
    "seventeen components": {"tcbLevels": [tcb_level(tdx=bytes(17))]},
    "a PCESVN above 65535": {"tcbLevels": [tcb_level(pce_svn=65536)]},
    "advisories that are no list": {"tcbLevels": [{**tcb_level(), "advisoryIDs": "INTEL-SA-1"}]},
    "advisories that are no texts": {"tcbLevels": [{**tcb_level(), "advisoryIDs": [1]}]},
    "a date without time": {"issueDate": "2024-12-20"},
    "a date with an offset": {"issueDate": "2024-12-20T00:00:00+01:00"},
    "a date of no calendar": {"nextUpdate": "2025-02-30T00:00:00Z"},
    "a date with a fraction": {"nextUpdate": "2025-01-19T00:00:00.1Z"},
    "a module without signer": {"tdxModule": without(module(None), "mrsigner")},
    "a module with a short mask": {"tdxModule": module(None, attributesMask="FF")},
    "an identity without levels": {"tdxModuleIdentities": [{**module(), "tcbLevels": []}]},
    "an identity without id": {"tdxModuleIdentities": [module(None)]},
    "no identities in the list": {"tdxModuleIdentities": []},
}


@pytest.mark.parametrize("why", BAD_INFO)
def test_tcb_info_that_is_not_in_form_is_refused(why: str) -> None:
    with pytest.raises(MalformedCollateral):
        parse_tcb_info(info(**BAD_INFO[why]))


@pytest.mark.parametrize("svn", [-1, 256, "1", 1.0, True, None])
def test_svns_are_integers_of_one_byte(svn: object) -> None:
    level = tcb_level()
    level["tcb"]["sgxtcbcomponents"][3] = {"svn": svn}
    with pytest.raises(MalformedCollateral):
        parse_tcb_info(info(tcbLevels=[level]))
    for wrong in ({}, [["svn", 1]], 1, "svn", {"SVN": 1}):
        level["tcb"]["sgxtcbcomponents"][3] = wrong
        with pytest.raises(MalformedCollateral):
            parse_tcb_info(info(tcbLevels=[level]))


BAD_IDENTITY: dict[str, dict[str, Any]] = {
    "version 1": {"version": 1},
    "another enclave": {"id": "PCE"},
    "a short mask": {"attributesMask": "FF"},
    "MISCSELECT in another size": {"miscselect": "0000000000"},
    "a product above 65535": {"isvprodid": 65536},
    "a status for platforms": {"tcbLevels": [svn_level(4, "SWHardeningNeeded")]},
    "a level without isvsvn": {"tcbLevels": [without(svn_level(4), "tcb", "isvsvn")]},
    "no levels": {"tcbLevels": []},
}


@pytest.mark.parametrize("why", BAD_IDENTITY)
def test_identities_that_are_not_in_form_are_refused(why: str) -> None:
    with pytest.raises(MalformedCollateral):
        parse_qe_identity(identity(**BAD_IDENTITY[why]))


def test_members_that_we_do_not_know_are_ignored() -> None:
    assert parse_tcb_info(info(somethingNew={"a": [1, {"b": None}]})) is not None


GOOD = document("tcbInfo", tcb_info("SGX"))
TWICE = GOOD.replace(b'"version":3,', b'"version":3,"version":3,')
BAD_TEXT: dict[str, bytes] = {
    "nothing": b"",
    "no object": b"[]",
    "another name": GOOD.replace(b"tcbInfo", b"tcbinfo"),
    "no signature": GOOD[: GOOD.rindex(b',"signature"')] + b"}",
    "a short signature": GOOD[:-3] + b'"}',
    "a signature that is no hex": GOOD[:-3] + b'g"}',
    "something behind": GOOD + b"x",
    "another member": GOOD[:-1] + b',"x":1}',
    "the body twice": GOOD[:-1] + GOOD[: GOOD.rindex(b',"signature"')].replace(b"{", b",", 1) + b"}",
    "a member twice": TWICE,
    "a component's member twice": GOOD.replace(b'{"svn":3}', b'{"svn":9,"svn":3}', 1),
    "a member twice in a level": GOOD.replace(b'"pcesvn":13', b'"pcesvn":1,"pcesvn":13', 1),
    "not a number": GOOD.replace(b'"version":3', b'"version":NaN'),
    "an endless number": GOOD.replace(b'"version":3', b'"version":' + b"9" * 5000),
    "deep nesting": b'{"tcbInfo":' + b"[" * 100_000 + b"]" * 100_000 + b',"signature":""}',
    "not ASCII": GOOD.replace(b"UpToDate", b"UpToDat\xc3\xa9"),
    "cut short": GOOD[:200],
    "too long": GOOD[:-1] + b" " * (256 * 1024) + b"}",
}


@pytest.mark.parametrize("why", BAD_TEXT)
def test_documents_that_are_not_json_of_this_form_are_refused(why: str) -> None:
    with pytest.raises(MalformedCollateral):
        parse_tcb_info(BAD_TEXT[why])


def test_the_signed_bytes_are_those_that_were_sent() -> None:
    raw = json.dumps(tcb_info("SGX"), indent=2).encode()
    spaced = document("tcbInfo", raw).replace(b'{"tcbInfo":', b' {\n "tcbInfo" :\t') + b"\n"
    assert parse_tcb_info(spaced).body == raw
