"""Chains to a pinned root, and revocation. Every TEE with X.509 certificates uses these two functions.

Check names are formed from the prefix the TEE passes: ``snp.chain.signature``, ``dcap.pck.chain.root``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from enarx.attest.anchors import Anchor, Vendor
from enarx.attest.checks import Phrase
from enarx.attest.claims import Revocation
from enarx.attest.der import Der, Tag, only
from enarx.attest.errors import MalformedCollateral
from enarx.attest.tee import Context
from enarx.attest.x509 import (
    BASIC_CONSTRAINTS,
    KEY_USAGE,
    Certificate,
    SignatureAlgorithm,
    read_algorithm,
    read_extensions,
)

MAX_DEPTH: Final = 6
"""Certificates from leaf to root; vendors use 3, AWS Nitro 5."""

_UNDERSTOOD: Final = frozenset({BASIC_CONSTRAINTS, KEY_USAGE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A verified path, leaf first. The last certificate is the pinned root's."""

    certificates: tuple[Certificate, ...]
    anchor: Anchor

    def issued(self) -> Iterable[tuple[Certificate, Certificate]]:
        """Each certificate but the root with its issuer."""
        return pairwise(self.certificates)


def verify_chain(
    leaf: Certificate,
    candidates: Iterable[Certificate],
    context: Context,
    *,
    vendor: Vendor,
    name: str,
    understood: frozenset[str] = frozenset(),
) -> Chain:
    """Find and check the path from ``leaf`` to a root of ``vendor`` at ``context.now``.

    ``understood`` are dotted OIDs of further critical extensions that the caller judges itself.

    Checks: ``.issuer`` (CollateralMissing), ``.signature``, ``.root``, ``.length``, ``.ca``,
    ``.path_length``, ``.key_usage``, ``.critical``, ``.not_before``, ``.not_after``.
    """
    anchors = context.anchors.of(vendor)
    pool = [anchor.certificate for anchor in anchors if anchor.certificate is not None]
    pool += candidates
    by_key = {anchor.spki: anchor for anchor in reversed(anchors)}
    path = [leaf]
    while (anchor := by_key.get(path[-1].spki)) is None:
        path.append(_issuer(path, pool, context, name))
    certificates = tuple(path)
    for position, certificate in enumerate(certificates):
        _check_certificate(certificate, position, context, name, understood)
    context.ledger.require(
        f"{name}.root",
        len(path) > 1,
        expected="a pinned root that is not itself the leaf",
        found=anchor,
        advice="a root never signs evidence",
    )
    return Chain(certificates=certificates, anchor=anchor)


def _issuer(path: list[Certificate], pool: list[Certificate], context: Context, name: str) -> Certificate:
    """The certificate whose key signed the end of ``path``."""
    ledger, current = context.ledger, path[-1]
    if current.issuer == current.subject or not context.anchors.anchors:
        ledger.require(
            f"{name}.root",
            False,
            expected="a pinned root",
            found=f"{current.issuer_common_name} with key {current.spki_sha256.hex()}",
            advice="the chain ends in a key that is not trusted; name the root if you mean to trust it",
        )
    if len(path) >= MAX_DEPTH:
        ledger.require(f"{name}.length", False, expected=f"at most {MAX_DEPTH}", found="more")
    named = [candidate for candidate in pool if candidate.subject == current.issuer and candidate not in path]
    if not named:
        ledger.missing(
            f"{name}.issuer",
            f"the certificate of {current.issuer_common_name}",
            advice="give the vendor's certificate chain as collateral",
        )
    for candidate in named:
        if context.is_signed(candidate.spki, current.algorithm, current.signature, current.tbs):
            break
    else:
        candidate = None
    ledger.require(
        f"{name}.signature",
        candidate is not None,
        expected=Phrase("signed by {}", candidate or named[0]),
        found=Phrase("{} {}", current, "signed so" if candidate else "signed otherwise"),
        advice="the issuer's certificate is of another key, or this certificate was changed",
    )
    assert candidate is not None  # noqa: S101 -- require raised otherwise; this tells the type checker
    return candidate


def _check_certificate(
    certificate: Certificate, position: int, context: Context, name: str, understood: frozenset[str]
) -> None:
    require, who = context.ledger.require, certificate
    check_validity(certificate.not_before, certificate.not_after, context, name=name, who=who)
    for oid, extension in certificate.extensions.items():
        if extension.critical and oid not in _UNDERSTOOD and oid not in understood:
            require(
                f"{name}.critical",
                False,
                expected="extensions that we know",
                found=Phrase("{} in {}", oid, who),
            )
    require(
        f"{name}.ca",
        certificate.is_ca == (position > 0),
        expected=Phrase("{} is {}", who, "a CA" if position else "no CA"),
        found="a CA" if certificate.is_ca else "no CA",
    )
    if position == 0:
        return
    usage, limit = certificate.key_usage, certificate.path_length
    require(
        f"{name}.key_usage",
        usage is None or usage & _KEY_CERT_SIGN != 0,
        expected=Phrase("keyCertSign (bit {}) in {}", _KEY_CERT_SIGN, who),
        found=usage,
    )
    if limit is not None:
        require(
            f"{name}.path_length",
            position - 1 <= limit,
            expected=Phrase("at most {} intermediates below {}", limit, who),
            found=position - 1,
        )


def check_validity(
    not_before: datetime, not_after: datetime, context: Context, *, name: str, who: object
) -> None:
    """Require ``not_before <= now <= not_after``: checks ``.not_before`` and ``.not_after``."""
    context.ledger.require(
        f"{name}.not_before",
        not_before <= context.now,
        expected=Phrase("not before {} ({})", not_before, who),
        found=context.now,
        advice="the clock of the verifier is wrong, or this was issued for later",
    )
    context.ledger.require(
        f"{name}.not_after",
        context.now <= not_after,
        expected=Phrase("not after {} ({})", not_after, who),
        found=context.now,
        advice="fetch it anew, or judge the evidence at the time at which it was made",
    )


_KEY_CERT_SIGN: Final = 0x04
_CRL_SIGN: Final = 0x02


# Revocation lists (RFC 5280, section 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """A CRL as a value; nothing here was verified."""

    der: bytes
    tbs: bytes
    issuer: bytes
    this_update: datetime
    next_update: datetime
    revoked: frozenset[int]
    algorithm: SignatureAlgorithm
    signature: bytes


_CRL_EXTENSIONS: Final = frozenset({"2.5.29.35", "2.5.29.20"})
"""Authority key identifier and CRL number: anything else that is critical changes what the list means."""


def parse_revocation_list(der: bytes) -> RevocationList:
    """Read one complete list. Raises ``MalformedCollateral``; delta and partitioned lists are refused."""
    outer = only(der, Tag.SEQUENCE, name="revocation list")
    if outer.peek() != Tag.SEQUENCE:
        raise outer.bad("no body")
    body, tbs = outer.any()[1:]
    algorithm, signature = read_algorithm(outer), outer.bits("signature")
    outer.end()
    at = Der(body, name="revocation list")
    if at.small("version") != 1 or read_algorithm(at) is not algorithm or at.peek() != Tag.SEQUENCE:
        raise at.bad("not a version 2 list, or its signature algorithms differ")
    issuer, this_update, next_update = at.any()[2], at.time("this update"), at.time("next update")
    revoked = _serials(at.take(Tag.SEQUENCE, "entries")) if at.peek() == Tag.SEQUENCE else frozenset()
    extensions = read_extensions(at.inside(0xA0, "extensions")) if at.more() else {}
    at.end()
    for oid, extension in extensions.items():
        if extension.critical and oid not in _CRL_EXTENSIONS:
            raise MalformedCollateral(
                f"revocation list has the critical extension {oid}, which limits what it says"
            )
    return RevocationList(
        der=der,
        tbs=tbs,
        issuer=issuer,
        this_update=this_update,
        next_update=next_update,
        revoked=revoked,
        algorithm=algorithm,
        signature=signature,
    )


_ENTRY: Final = re.compile(rb"\x30([\x00-\x7f])\x02([\x01-\x20])", re.DOTALL)
_DATE: Final = re.compile(rb"(?:\x17\x0d\d{12}|\x18\x0f\d{14})Z(?:\x30([\x00-\x7f]))?", re.DOTALL)


_USUAL: Final = re.compile(
    b"\x30("
    + b"|".join(
        re.escape(bytes([size + 31, Tag.INTEGER, size])) + b"(?!\x00[\x00-\x7f])[\x00-\x7f].{%d}" % (size - 1)
        for size in (20, 21, 19)
    )
    + rb")\x17\x0d\d{12}Z\x30\x0c.{12}",
    re.DOTALL,
)
"""An entry with a positive serial number of about 20 bytes, as authorities draw them, a UTCTime and a reason."""


def _serials(entries: bytes) -> frozenset[int]:
    """The serial numbers in a list's entries, which may be thousands: SEQUENCE {INTEGER, time, extensions}.

    Entries of 128 bytes and more are refused: they are of lists that speak for other authorities.
    """
    usual = _USUAL.findall(entries)
    if sum(map(len, usual)) + 30 * len(usual) == len(entries):  # there is no other
        return frozenset([int.from_bytes(one[3:]) for one in usual])
    found: set[int] = set()
    at = 0
    while at < len(entries):
        head = _ENTRY.match(entries, at)
        if head is None:
            break
        start = head.end()
        end, stop = at + 2 + head[1][0], start + head[2][0]
        date = _DATE.match(entries, stop, end)
        rest = 0 if date is None or date[1] is None else date[1][0]
        shortest = stop - start == 1 or not (entries[start] == 0 and entries[start + 1] < 0x80)
        if date is None or date.end() + rest != end or end > len(entries) or not shortest:
            break
        found.add(int.from_bytes(entries[start:stop], "big", signed=True))
        at = end
    if at != len(entries):
        raise MalformedCollateral(f"revocation list: no entry that is understood at {at:#x} of the entries")
    return frozenset(found)


def verify_not_revoked(
    pairs: Iterable[tuple[Certificate, Certificate]], context: Context, *, name: str
) -> Revocation:
    """Look up each certificate in the newest list of its issuer among ``context.collateral.crls``; give the
    worst answer.

    ``pairs`` are certificates with their verified issuers. A list that is missing or stale is noted and given
    back, for policy to judge; a list with a wrong signature, from the future, or that names the certificate
    raises.

    Checks: ``.missing``, ``.signature``, ``.key_usage``, ``.issued``, ``.stale``, ``.revoked``.
    """
    lists = [context.cache.remember(parse_revocation_list, der) for der in context.collateral.crls]
    worst = Revocation.CHECKED
    for certificate, issuer in pairs:
        answer = _look_up(
            certificate, issuer, [crl for crl in lists if crl.issuer == issuer.subject], context, name
        )
        if answer is Revocation.MISSING or worst is Revocation.CHECKED:
            worst = answer
    return worst


def _look_up(
    certificate: Certificate, issuer: Certificate, lists: list[RevocationList], context: Context, name: str
) -> Revocation:
    ledger, who = context.ledger, issuer
    if not lists:
        ledger.note(
            f"{name}.missing",
            expected=Phrase("a revocation list of {}", who),
            found=None,
            advice="give the vendor's revocation list as collateral",
        )
        return Revocation.MISSING
    usage = issuer.key_usage
    ledger.require(
        f"{name}.key_usage",
        usage is None or usage & _CRL_SIGN != 0,
        expected="cRLSign",
        found=Phrase("{}, usage {}", who, usage),
    )
    for crl in lists:
        genuine = context.is_signed(issuer.spki, crl.algorithm, crl.signature, crl.tbs)
        ledger.require(
            f"{name}.signature",
            genuine,
            expected=Phrase("signed by {}", who),
            found="so" if genuine else "not so",
        )
        revoked = certificate.serial in crl.revoked
        ledger.require(
            f"{name}.revoked",
            not revoked,
            expected=Phrase("serial {} of {} not listed", certificate.serial, certificate),
            found="listed" if revoked else "not listed",
            advice="the vendor withdrew this certificate; fetch the one that replaced it",
        )
    newest = max(lists, key=lambda crl: crl.this_update)
    ledger.require(
        f"{name}.issued",
        newest.this_update <= context.now,
        expected=Phrase("not before {} (list of {})", newest.this_update, who),
        found=context.now,
        advice="the clock of the verifier is wrong, or this list was issued for later",
    )
    if context.now > newest.next_update:
        ledger.note(
            f"{name}.stale",
            expected=Phrase("not after {} (list of {})", newest.next_update, who),
            found=context.now,
        )
        return Revocation.STALE
    return Revocation.CHECKED


def worst(*answers: Revocation) -> Revocation:
    """The answer that says least."""
    order = (Revocation.MISSING, Revocation.STALE, Revocation.NOT_PUBLISHED, Revocation.CHECKED)
    return min(answers, key=order.index)
