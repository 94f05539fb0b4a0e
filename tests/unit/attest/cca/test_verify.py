"""Each check of a CCA token fails alone: right in all but one thing, signed by keys of ours."""

from __future__ import annotations

import hashlib

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.forge.cca import (
    CHALLENGE,
    COMPONENTS,
    IMPLEMENTATION_ID,
    INSTANCE_ID,
    PERSONALIZATION,
    PLATFORM,
    REALM,
    REMS,
    RIM,
    Case,
    cose_key,
    point,
)
from tests.forge.pki import NOW, Cert, amd_name, ec_key

from enarx.attest import (
    AnyBinding,
    AuthenticityOnly,
    Claims,
    Collateral,
    CollateralMissing,
    Document,
    EvidenceRejected,
    Kind,
    MalformedEvidence,
    Policy,
    PolicyDenied,
    PolicyError,
    Revocation,
    Tee,
    TrustAnchors,
    Vendor,
    Verifier,
    uncovered,
)
from enarx.attest.cca import VERIFIER, CcaDetail
from enarx.tcb.errors import EnarxError

P256 = ec_key("cca-256", ec.SECP256R1)
OTHER = ec_key("another")
LIFECYCLES = {
    0x0000: "unknown",
    0x10FF: "assembly-and-test",
    0x2001: "cca-platform-rot-provisioning",
    0x4000: "non-cca-platform-rot-debug",
    0x5001: "recoverable-cca-platform-rot-debug",
    0x6000: "decommissioned",
}


def judge(
    case: Case,
    *,
    binding: bytes | AnyBinding = CHALLENGE,
    policy: Policy | AuthenticityOnly | None = None,
    anchors: TrustAnchors | None = None,
    collateral: Collateral | None = None,
) -> Claims:
    verifier = Verifier(
        tees=[VERIFIER],
        anchors=case.anchors if anchors is None else anchors,
        policy=policy or AuthenticityOnly(),
    )
    return verifier.verify(case.raw, collateral=collateral or Collateral.none(), binding=binding, now=NOW)


def with_member(label: int, value: object) -> bytes:
    """A COSE_Key with one thing more."""
    return cbor2.dumps({**cbor2.loads(cose_key(ec_key("rak"))), label: value})


HEALTHY = {
    "bare point, P-384": Case(),
    "COSE_Key and profiles": Case(
        realm={44237: cose_key(ec_key("rak")), 265: "tag:arm.com,2023:realm#1.0.0"},
        platform={265: "tag:arm.com,2023:cca_platform#1.0.0"},
    ),
    "platform key of P-256": Case(cpak=P256, trusted=(P256,)),
    "realm key of P-256": Case(rak=P256, realm={44237: cose_key(P256)}),
    "COSE_Key with its algorithm": Case(realm={44237: with_member(3, -35)}),
    "bound by SHA-512": Case(
        realm={44240: "sha-512"}, platform={10: hashlib.sha512(point(ec_key("rak"))).digest()}
    ),
    "one of several platforms": Case(trusted=(OTHER, P256, ec_key("cpak"))),
    "claims of a later release": Case(realm={4711: b"x", "text": [1]}, platform={4711: 2**70}),
    "no verification service": Case(platform={2400: ...}),
}


@pytest.mark.parametrize("what", HEALTHY)
def test_a_healthy_token_says_what_was_put_in(what: str) -> None:
    claims = judge(HEALTHY[what])
    assert claims.tee is Tee.CCA
    assert claims.bound
    assert claims.measurement == RIM
    assert claims.measurements == {"rim": RIM, **{f"rem{at}": REMS[at] for at in range(4)}}
    assert claims.report_data == CHALLENGE
    assert claims.chip_id == INSTANCE_ID
    assert claims.revocation is Revocation.NOT_PUBLISHED
    assert not claims.debug
    assert not claims.root.is_vendor
    assert isinstance(claims.detail, CcaDetail)


def test_verdict_names_the_platform_that_signed() -> None:
    assert judge(HEALTHY["one of several platforms"]).root.name == "platform 2"


def test_unknown_claims_are_shown_as_not_looked_at() -> None:
    claims = judge(HEALTHY["claims of a later release"])
    unseen = uncovered(claims.evidence.fields(), claims.checks)
    assert {"realm.claim.4711", "realm.claim.'text'", "platform.claim.4711"} <= set(unseen)


REJECTED = {
    "platform of another device": ("cca.platform.signature", Case(cpak=OTHER)),
    "algorithm of another curve, platform": ("cca.platform.algorithm", Case(platform_header={1: -7})),
    "no algorithm that is known": ("cca.platform.algorithm", Case(platform_header={1: -36})),
    "P-256 that announces ES384": (
        "cca.platform.algorithm",
        Case(cpak=P256, trusted=(P256,), platform_header={1: -35}),
    ),
    "key of P-521": (
        "cca.platform.algorithm",
        Case(cpak=ec_key("cca-521", ec.SECP521R1), trusted=(ec_key("cca-521", ec.SECP521R1),)),
    ),
    "hash of another realm key": ("cca.realm.key", Case(platform={10: b"\x11" * 32})),
    "hash that is cut": (
        "cca.realm.key",
        Case(realm={44240: "sha-512"}, platform={10: hashlib.sha512(point(ec_key("rak"))).digest()[:32]}),
    ),
    "hash algorithm changed": (
        "cca.realm.key",
        Case(realm={44240: "sha-384"}, platform={10: hashlib.sha256(point(ec_key("rak"))).digest()}),
    ),
    "hash of the key in its other form": (
        "cca.realm.key",
        Case(
            realm={44237: cose_key(ec_key("rak"))},
            platform={10: hashlib.sha256(point(ec_key("rak"))).digest()},
        ),
    ),
    "realm signed by another key": ("cca.realm.signature", Case(realm_signer=OTHER)),
    "realm signed by the platform": ("cca.realm.signature", Case(realm_signer=ec_key("cpak"))),
    "algorithm of another curve, realm": ("cca.realm.algorithm", Case(realm_header={1: -7})),
}


@pytest.mark.parametrize("what", REJECTED)
def test_each_check_fails_alone(what: str) -> None:
    """A18, A21."""
    check, case = REJECTED[what]
    with pytest.raises(EvidenceRejected) as refused:
        judge(case)
    assert refused.value.check.name == check


def test_realm_of_another_platform_is_refused() -> None:
    """Both tokens are genuine, but each is of another boot."""
    theirs = cbor2.loads(Case(rak=OTHER).raw).value[REALM]
    with pytest.raises(EvidenceRejected) as refused:
        judge(Case(items={REALM: theirs}))
    assert refused.value.check.name == "cca.realm.key"


def test_no_key_in_collateral_and_no_root_of_a_vendor_stands_in_for_an_enrolled_one() -> None:
    """A12: not even a certificate that the caller trusts for something else."""
    spki = ec_key("cpak").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    given = Collateral(documents=(Document(Kind.PUBLIC_KEY, spki),))
    root = Cert(name=amd_name("root"), key=ec_key("cpak")).der
    for anchors in (
        TrustAnchors.none(),
        TrustAnchors.vendor(),
        TrustAnchors.none().adding(spki, name="AMD's", vendor=Vendor.AMD),
        TrustAnchors.none().adding(root, name="root"),
    ):
        with pytest.raises(CollateralMissing) as refused:
            judge(Case(), anchors=anchors, collateral=given)
        assert refused.value.check.name == "cca.platform.key"


@pytest.mark.parametrize("binding", [b"", CHALLENGE[:-1], CHALLENGE + b"\x00", CHALLENGE[::-1]])
def test_another_challenge_is_refused(binding: bytes) -> None:
    """A1."""
    with pytest.raises(EvidenceRejected) as refused:
        judge(Case(), binding=binding)
    assert refused.value.check.name == "binding.report_data"


MALFORMED = {
    "no tag": Case(tag=None),
    "another tag": Case(tag=400),
    "realm alone": Case(items={PLATFORM: ...}),
    "platform alone": Case(items={REALM: ...}),
    "a third token": Case(items={44242: b""}),
    "token that is no byte string": Case(items={REALM: "text"}),
    "token without a tag": Case(inner_tag=None),
    "COSE_Mac0": Case(inner_tag=17),
    "unprotected header": Case(unprotected={4: b"key of mine"}),
    "no algorithm": Case(realm_header={}),
    "key in the header": Case(platform_header={1: -35, 33: b"certificate"}),
    "challenge of 63 bytes": Case(realm={10: bytes(63)}),
    "challenge of 65 bytes": Case(realm={10: bytes(65)}),
    "no challenge": Case(realm={10: ...}),
    "challenge that is text": Case(realm={10: "a" * 64}),
    "realm profile": Case(realm={265: "tag:arm.com,2023:realm#2.0.0"}),
    "realm profile that is empty": Case(realm={265: ""}),
    "personalization of 32 bytes": Case(realm={44235: bytes(32)}),
    "RIM of 31 bytes": Case(realm={44238: bytes(31), 44239: [bytes(31)] * 4}),
    "three REMs": Case(realm={44239: REMS[:3]}),
    "five REMs": Case(realm={44239: [*REMS, REMS[0]]}),
    "REM of another length": Case(realm={44239: [*REMS[:3], bytes(48)]}),
    "REM that is text": Case(realm={44239: [*REMS[:3], "a" * 32]}),
    "hash that is not known": Case(realm={44240: "sha-1"}),
    "hash that is a number": Case(realm={44236: -16}),
    "realm key not on its curve": Case(realm={44237: b"\x04" + b"\x01" * 96}),
    "realm key compressed": Case(realm={44237: b"\x02" + point(ec_key("rak"))[1:49]}),
    "COSE_Key not on its curve": Case(realm={44237: cose_key(ec_key("rak"), y=b"\x01" * 48)}),
    "COSE_Key of another curve": Case(realm={44237: cose_key(ec_key("rak"), crv=3)}),
    "COSE_Key of P-384 that says P-256": Case(realm={44237: cose_key(ec_key("rak"), crv=1)}),
    "COSE_Key of another type": Case(realm={44237: cose_key(ec_key("rak"), kty=1)}),
    "COSE_Key with the sign of y": Case(realm={44237: cose_key(ec_key("rak"), y=True)}),
    "COSE_Key whose coordinates differ": Case(
        realm={44237: cose_key(ec_key("rak"), x=bytes(47), y=bytes(49))}
    ),
    "COSE_Key and more": Case(realm={44237: with_member(-4, b"private")}),
    "COSE_Key with another algorithm": Case(realm={44237: with_member(3, -7)}),
    "platform profile": Case(platform={265: "http://arm.com/CCA-SSD/2.0.0"}),
    "no platform profile": Case(platform={265: ...}),
    "implementation of 31 bytes": Case(platform={2396: bytes(31)}),
    "instance of 32 bytes": Case(platform={256: INSTANCE_ID[:-1]}),
    "instance of another kind": Case(platform={256: b"\x02" + INSTANCE_ID[1:]}),
    "lifecycle that is reserved": Case(platform={2395: 0x3100}),
    "lifecycle past the last": Case(platform={2395: 0x7000}),
    "lifecycle that is negative": Case(platform={2395: -1}),
    "lifecycle that is true": Case(platform={2395: True}),
    "lifecycle without end": Case(platform={2395: 2**20000}),
    "no components": Case(platform={2399: []}),
    "too many components": Case(platform={2399: COMPONENTS * 33}),
    "component without a signer": Case(platform={2399: [{2: bytes(32)}]}),
    "component with more": Case(platform={2399: [{**COMPONENTS[0], 3: 1}]}),
    "component of 20 bytes": Case(platform={2399: [{**COMPONENTS[0], 2: bytes(20)}]}),
    "component's hash": Case(platform={2399: [{**COMPONENTS[0], 6: "md5"}]}),
    "service that is a number": Case(platform={2400: 1}),
    "configuration too long": Case(platform={2401: bytes(1025)}),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_not_in_form_is_malformed(what: str) -> None:
    with pytest.raises(MalformedEvidence):
        VERIFIER.parse(MALFORMED[what].raw)


def test_cbor_is_read_strictly() -> None:
    """A9: a key twice, a list in place of the map, lengths left open, bytes behind, and depth."""
    raw = Case().raw
    tokens = cbor2.loads(raw).value
    pair = b"\x19\xac\xca" + cbor2.dumps(tokens[PLATFORM])
    realm = b"\x19\xac\xd1" + cbor2.dumps(tokens[REALM])
    assert VERIFIER.parse(b"\xd9\x01\x8f\xa2" + pair + realm)
    wrong = [
        b"\xd9\x01\x8f\xa3" + pair + realm + pair,
        b"\xd9\x01\x8f\xbf" + pair + realm + b"\xff",
        b"\xd9\x01\x8f" + cbor2.dumps([tokens[PLATFORM], tokens[REALM]]),
        raw + b"\x00",
        b"\xd9\x01\x8f" + b"\x81" * 5000,
        b"\xd9\x01\x8f",
    ]
    for data in wrong:
        with pytest.raises(MalformedEvidence):
            VERIFIER.parse(data)


BASE = 'version = 1\n[cca]\nvendor_root = "any"\n'


def written(*values: bytes) -> str:
    return "[" + ", ".join(f'"{value.hex()}"' for value in values) + "]"


def section(text: str, case: Case | None = None) -> list[str]:
    """The policy checks that fail."""
    needed = "".join(
        f'{name} = "any"\n' for name in ("measurement", "software_components") if name not in text
    )
    try:
        judge(case or Case(), policy=Policy.parse(BASE + needed + text, [VERIFIER]))
    except PolicyDenied as refused:
        return [check.name for check in refused.failures]
    return []


VALUES = tuple(one[2] for one in COMPONENTS)
KEYS = [
    ("measurement", written(RIM), written(REMS[0])),
    ("software_components", written(*VALUES), written(VALUES[0])),
    ("signers", written(COMPONENTS[0][5], RIM), written(RIM)),
    ("lifecycle", '["secured", "unknown"]', '["unknown"]'),
    ("implementation_id", written(IMPLEMENTATION_ID), written(RIM)),
    ("instance_id", written(INSTANCE_ID), written(b"\x01" + RIM)),
    ("denied_instances", written(b"\x01" + RIM), written(INSTANCE_ID)),
    ("config", written(b"\xcf" * 4), written(b"\xcf" * 3)),
    ("hash_algorithm", '["sha-256"]', '["sha-512"]'),
    ("personalization_value", written(PERSONALIZATION), written(bytes(64))),
    *((f"rem{at}", written(REMS[at]), written(RIM)) for at in range(4)),
    ("debug", "false", "true"),
    ("revocation", '["not-published"]', '["checked"]'),
]


@pytest.mark.parametrize(("name", "met", "broken"), KEYS)
def test_each_policy_key_decides_alone(name: str, met: str, broken: str) -> None:
    assert section(f"{name} = {met}") == []
    assert section(f"{name} = {broken}") == [f"policy.cca.{name}"]


@pytest.mark.parametrize("number", LIFECYCLES)
def test_a_platform_that_is_not_secured_is_denied_by_default(number: int) -> None:
    failed = section("", Case(platform={2395: number}))
    debug = ["policy.cca.debug"] if number >> 12 in (4, 5) else []
    assert failed == [*debug, "policy.cca.lifecycle"]
    assert (
        section(f'debug = "any"\nlifecycle = ["{LIFECYCLES[number]}"]', Case(platform={2395: number})) == []
    )


def test_an_enrolled_key_is_no_root_of_a_vendor() -> None:
    text = 'version = 1\n[cca]\nmeasurement = "any"\nsoftware_components = "any"'
    with pytest.raises(PolicyDenied) as refused:
        judge(Case(), policy=Policy.parse(text, [VERIFIER]))
    assert [check.name for check in refused.value.failures] == ["policy.cca.vendor_root"]


@pytest.mark.parametrize(
    "text",
    [
        "software_components = []",
        f"software_components = {written(bytes(32))}",
        "lifecycle = [12291]",
        f"instance_id = {written(RIM)}",
        'denied_instances = "any"',
        'hash_algorithm = ["sha-1"]',
    ],
)
def test_a_wrong_key_is_an_error_of_the_policy(text: str) -> None:
    with pytest.raises(PolicyError):
        section(text)


def test_realm_and_firmware_must_be_written() -> None:
    for text in ('measurement = "any"', 'software_components = "any"'):
        with pytest.raises(PolicyError):
            Policy.parse(BASE + text, [VERIFIER])


def test_lint_names_what_leaves_the_firmware_open() -> None:
    text = 'measurement = "any"\nsoftware_components = "any"\nlifecycle = ["unknown"]'
    found = Policy.parse(BASE + text, [VERIFIER]).lint()
    assert [line.partition(":")[0] for line in found] == [
        "cca.measurement",
        "cca.vendor_root",
        "cca.software_components",
        "cca.lifecycle",
    ]


def test_no_byte_can_change() -> None:
    case = Case()
    raw, verifier = case.raw, Verifier(tees=[VERIFIER], anchors=case.anchors, policy=AuthenticityOnly())
    for spot in range(len(raw)):
        flipped = bytearray(raw)
        flipped[spot] ^= 1 << spot % 8
        with pytest.raises(EnarxError):
            verifier.verify(bytes(flipped), collateral=Collateral.none(), binding=CHALLENGE, now=NOW)
