"""What a tenant prepares for a launch, and what it refuses to answer."""

from __future__ import annotations

import pytest
from tests.forge.launch import REPORT_DATA, machine_anchors, machine_pem, proof, released, sealed
from tests.forge.pki import NOW
from tests.forge.sev import Case, Launch

from enarx.api.keep_image import Image
from enarx.attest import (
    AuthenticityOnly,
    Collateral,
    CollateralMissing,
    Document,
    EvidenceRejected,
    Kind,
    Tee,
    TrustAnchors,
)
from enarx.attest.anchors import pem_blocks
from enarx.attest.pef import SealedLaunch, parse_esm_blob
from enarx.attest.sev import LaunchSession, parse_certificate
from enarx.tcb.errors import Malformed, ProtocolViolation
from enarx.tcb.wire import decode, encode
from enarx.tenant.image import pef_digests, reference_measurement
from enarx.tenant.kept_launch import KeptLaunch, parse_kept
from enarx.tenant.launch import Prepared, prepare

IMAGE = Image(manifest=b"0" * 64 + b"  file\n", size=1)
CHAIN = b"".join(Case().certificates())
EXPORT = Document(Kind.SEV_CERTIFICATE, CHAIN[: 4 * 2084])
VENDOR = Document(Kind.SEV_CERTIFICATE, CHAIN[4 * 2084 :])
DER = next(iter(pem_blocks(machine_pem())))[1]


def on(tee: Tee, *documents: Document, anchors: TrustAnchors | None = None) -> Prepared:
    chosen = anchors or (machine_anchors() if tee is Tee.PEF else Case().anchors)
    return prepare(
        tee,
        Collateral(documents=documents),
        IMAGE,
        anchors=chosen,
        policy=AuthenticityOnly(),
        now=NOW,
    )


def of_sev(tee: Tee = Tee.SEV_ES) -> Prepared:
    return on(tee, Document(Kind.SEV_CERTIFICATE, CHAIN))


def said(**changed: object) -> bytes:
    """What a platform says of a launch, of the right form."""
    return encode({"measure": bytes(48), "api_major": 1, "api_minor": 40, "build": 10} | changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("tee", [Tee.SNP, Tee.TDX, Tee.SGX])
def test_nothing_is_prepared_for_what_attests_after_boot(tee: Tee) -> None:
    prepared = on(tee)
    assert (prepared.tenant, prepared.session, prepared.kept, prepared.answer(b"")) == (b"", None, None, b"")
    assert prepared.evidence(b"a report") == b"a report"
    with pytest.raises(Malformed, match="launch"):
        prepared.answer(b"x")


@pytest.mark.parametrize(("tee", "policy"), [(Tee.SEV, b"\x2b\0\0\0"), (Tee.SEV_ES, b"\x2f\0\0\0")])
def test_a_launch_of_sev_gets_the_strict_policy_and_the_image(tee: Tee, policy: bytes) -> None:
    prepared = of_sev(tee)
    assert isinstance(prepared.session, LaunchSession)
    assert prepared.session.digests == (reference_measurement(IMAGE, tee),)
    match decode(prepared.tenant, max_bytes=1 << 16):
        case {"policy": bytes(told), "certificate": bytes(certificate), "session": bytes(session), **rest}:
            assert (told, session, rest) == (policy, prepared.session.session, {})
            assert parse_certificate(certificate).usage.name == "PDH"
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize("documents", [(EXPORT, VENDOR), (VENDOR, EXPORT)])
def test_certificates_of_amd_may_come_apart(documents: tuple[Document, ...]) -> None:
    prepared = on(Tee.SEV, *documents)
    assert isinstance(prepared.session, LaunchSession)
    with pytest.raises(EvidenceRejected) as refused:
        prepared.answer(said())
    assert refused.value.check.name == "sev.measure"


def test_no_two_launches_share_a_session() -> None:
    first, second = of_sev().session, of_sev().session
    assert isinstance(first, LaunchSession)
    assert isinstance(second, LaunchSession)
    assert first.tik != second.tik
    assert first.binding != second.binding


def test_a_launch_of_pef_is_sealed_for_the_one_machine() -> None:
    prepared = on(Tee.PEF, Document(Kind.PUBLIC_KEY, DER))
    assert isinstance(prepared.session, SealedLaunch)
    assert prepared.session.digests == pef_digests(IMAGE.manifest)
    match decode(prepared.tenant, max_bytes=1 << 16):
        case {"esm_blob": bytes(blob), **rest}:
            assert not rest
            assert len(parse_esm_blob(blob).lockboxes) == 1
        case other:
            raise AssertionError(other)
    assert prepared.answer(b"") == b""
    assert prepared.evidence(proof()) == proof()


def test_a_machine_key_in_another_form_than_collateral_has_is_no_machine() -> None:
    with pytest.raises(EvidenceRejected) as refused:
        on(Tee.PEF, Document(Kind.PUBLIC_KEY, machine_pem()))
    assert refused.value.check.name == "pef.machine"


@pytest.mark.parametrize(
    ("tee", "documents", "name"),
    [
        (Tee.SEV, (), "sev.chain.platform"),
        (Tee.SEV, (VENDOR,), "sev.chain.platform"),
        (Tee.SEV, (EXPORT,), "sev.chain.vendor"),
        (Tee.PEF, (), "pef.machine"),
        (Tee.PEF, (Document(Kind.SEV_CERTIFICATE, CHAIN),), "pef.machine"),
    ],
)
def test_without_the_keys_of_the_platform_nothing_is_prepared(
    tee: Tee, documents: tuple[Document, ...], name: str
) -> None:
    with pytest.raises(CollateralMissing) as missing:
        on(tee, *documents)
    assert missing.value.check.name == name


@pytest.mark.parametrize(
    ("tee", "document", "name"),
    [
        (Tee.SEV, Document(Kind.SEV_CERTIFICATE, CHAIN), "sev.chain.root"),
        (Tee.PEF, Document(Kind.PUBLIC_KEY, machine_pem()), "pef.machine"),
    ],
)
def test_a_platform_that_nobody_vouches_for_gets_nothing(tee: Tee, document: Document, name: str) -> None:
    with pytest.raises(EvidenceRejected) as refused:
        on(tee, document, anchors=TrustAnchors.vendor())
    assert refused.value.check.name == name


def test_a_measurement_that_does_not_hold_gets_no_secret() -> None:
    prepared = of_sev()
    with pytest.raises(EvidenceRejected) as refused:
        prepared.answer(said())
    assert refused.value.check.name == "sev.measure"
    assert prepared.kept is None
    with pytest.raises(ProtocolViolation):
        prepared.evidence(proof())


@pytest.mark.parametrize(
    "launch",
    [
        b"",
        b"\xff",
        encode([]),
        encode({"measure": bytes(48)}),
        said(measure=bytes(47)),
        said(build=256),
        said(api_major=-1),
        said(api_minor="40"),
        said(build=True),
        said(more=1),
        said(measure=bytes(5000)),
    ],
)
def test_another_form_of_launch_is_malformed(launch: bytes) -> None:
    with pytest.raises(Malformed):
        of_sev().answer(launch)


@pytest.mark.parametrize("tee", ["sev", "pef"])
def test_what_is_kept_is_read_again_and_shows_no_secret(tee: str) -> None:
    launch = Launch()
    sev = KeptLaunch(session=released(launch), document=launch.raw)
    kept = sev if tee == "sev" else KeptLaunch(session=sealed())
    assert parse_kept(kept.pack()) == kept
    assert kept.session.secret is not None
    assert kept.session.secret.hex() not in repr(kept)
    assert (kept.evidence(proof()) == proof()) is (tee == "pef")
    assert REPORT_DATA in kept.evidence(proof())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        encode({}),
        encode({"session": "{}", "document": b""}),
        KeptLaunch(session=sealed()).pack() + b"\0",
        encode({"session": "x", "document": b"", "more": 1}),
    ],
)
def test_anything_else_that_was_kept_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_kept(data)


def test_launch_evidence_belongs_to_a_session_of_sev() -> None:
    launch = Launch()
    with pytest.raises(Malformed, match="kept launch"):
        KeptLaunch(session=sealed(), document=launch.raw)
    with pytest.raises(Malformed, match="kept launch"):
        KeptLaunch(session=released(launch))
