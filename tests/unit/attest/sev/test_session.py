"""The launch of a legacy guest: recorded measurements and a recorded secret, and what must not pass."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from tests.evidence import Evidence
from tests.forge.sev import ec_key

from enarx.attest.measure import hash_kernel
from enarx.attest.sev import (
    STRICT,
    GuestPolicy,
    LaunchMeasure,
    LaunchRefused,
    SessionKeys,
    VerifiedLaunch,
    pack_policy,
    pack_secret,
    parse_launch_measure,
    prepare_session,
)
from enarx.attest.sev._session import _derive, _mac
from enarx.tcb.errors import Malformed

TIK, DIGEST, NONCE, POLICY = bytes(range(16)), bytes(range(32)), bytes(range(16, 32)), b"\x2f\0\x01\x28"
KEYS = SessionKeys(tek=bytes(range(32, 48)), tik=TIK)


def measured(**changes: Any) -> LaunchMeasure:
    said = b"\x04\x01\x28\x0a" + POLICY + DIGEST + NONCE
    made: dict[str, Any] = {"measure": _mac(TIK, said), "nonce": NONCE, "api": (1, 40), "build": 10}
    return LaunchMeasure(**{**made, **changes})


def test_the_measurement_expected_is_verified() -> None:
    found = measured()
    again = parse_launch_measure(found.measure + found.nonce, api=(1, 40), build=10)
    assert again == found
    verified = again.check(TIK, policy=POLICY, digest=DIGEST, minimum=(1, 40, 10))
    assert verified == VerifiedLaunch(measure=found.measure)


@pytest.mark.parametrize(
    ("found", "asked"),
    [
        (measured(nonce=bytes(16)), {}),
        (measured(api=(1, 41)), {}),
        (measured(build=11), {}),
        (measured(measure=bytes(32)), {}),
        (measured(), {"policy": b"\x2e\0\x01\x28"}),
        (measured(), {"digest": bytes(32)}),
        (measured(), {"tik": bytes(16)}),
    ],
)
def test_anything_else_is_refused(found: LaunchMeasure, asked: dict[str, bytes]) -> None:
    tik = asked.get("tik", TIK)
    with pytest.raises(LaunchRefused, match="launch measure"):
        found.check(tik, policy=asked.get("policy", POLICY), digest=asked.get("digest", DIGEST))


@pytest.mark.parametrize("minimum", [(1, 40, 11), (1, 41, 0), (2, 0, 0)])
def test_old_firmware_is_refused(minimum: tuple[int, int, int]) -> None:
    """A14: by the owner's minimum."""
    with pytest.raises(LaunchRefused, match="firmware"):
        measured().check(TIK, policy=POLICY, digest=DIGEST, minimum=minimum)


def test_firmware_below_the_policy_is_refused_though_its_mac_holds() -> None:
    """A14."""
    policy = b"\x2f\0\x01\x29"
    mac = _mac(TIK, b"\x04\x01\x28\x0a" + policy + DIGEST + NONCE)
    with pytest.raises(LaunchRefused, match="firmware"):
        measured(measure=mac).check(TIK, policy=policy, digest=DIGEST)


def test_keys_are_derived_as_published() -> None:
    """The known answer of AMD's derivation for zeros."""
    assert _derive(bytes(16), "sev-master-secret", bytes(16)).hex() == "ab4d269fcc62bedb4511d56c386ce706"


def test_the_platform_opens_the_session() -> None:
    platform, owner, iv = ec_key("pdh"), ec_key("owner"), bytes(range(64, 80))
    session = prepare_session(
        platform.public_key(), owner=owner, keys=KEYS, policy=POLICY, nonce=NONCE, iv=iv
    )
    assert len(session) == 128
    nonce, wrapped, said_iv, mac, policy_mac = (
        session[begin:end] for begin, end in ((0, 16), (16, 48), (48, 64), (64, 96), (96, 128))
    )
    master = _derive(platform.exchange(ec.ECDH(), owner.public_key()), "sev-master-secret", nonce)
    assert mac == _mac(_derive(master, "sev-kik"), wrapped)
    decryptor = Cipher(algorithms.AES(_derive(master, "sev-kek")), modes.CTR(said_iv)).decryptor()
    assert decryptor.update(wrapped) == KEYS.tek + KEYS.tik
    assert policy_mac == _mac(KEYS.tik, POLICY)


def test_a_session_on_another_curve_is_refused() -> None:
    with pytest.raises(Malformed, match="secp256r1"):
        prepare_session(
            ec_key("pdh").public_key(),
            owner=ec.generate_private_key(ec.SECP256R1()),
            keys=KEYS,
            policy=POLICY,
            nonce=NONCE,
            iv=NONCE,
        )


def test_policies_are_packed_as_the_platform_reads_them() -> None:
    assert pack_policy(STRICT | GuestPolicy.ES, api=(1, 40)) == b"\x2f\0\x01\x28"
    with pytest.raises(Malformed):
        pack_policy(STRICT, api=(1, 256))


@pytest.mark.parametrize("size", [0, 15, 17, 16 * 1024 + 16])
def test_a_secret_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(Malformed):
        pack_secret(VerifiedLaunch(measure=bytes(32)), bytes(size), keys=KEYS, iv=NONCE)


def test_keys_do_not_show_themselves() -> None:
    assert repr(KEYS) == "SessionKeys()"


def _measured(vector: dict[str, Any], evidence: Evidence) -> bytes:
    """Give what the firmware was given to measure: an image, and the table of hashes if there is a kernel."""
    image = evidence.read(vector["firmware"])
    if "kernel" not in vector:
        return image
    kernel, initrd = evidence.read(vector["kernel"]), evidence.read(vector["initrd"])
    return image + hash_kernel(kernel, initrd=initrd, cmdline=vector["cmdline"]).table()


@pytest.mark.evidence
def test_recorded_measurements_hold(evidence: Evidence) -> None:
    vectors = json.loads(evidence.read("sev/launch/vectors.json"))["vectors"]
    held = []
    for one in vectors:
        tik = bytes.fromhex(one["tik_hex"]) if "tik_hex" in one else evidence.read("sev/launch/tik.bin")
        mnonce = one["mnonce"]
        blob = bytes.fromhex(one.get("launch_measure_blob") or one["launch_measure"] + mnonce)
        digest = one.get("launch_digest") or hashlib.sha256(_measured(one, evidence)).hexdigest()
        found = parse_launch_measure(blob, api=(one["api_major"], one["api_minor"]), build=one["build_id"])
        policy = one["policy"].to_bytes(4, "little")
        found.check(tik, policy=policy, digest=bytes.fromhex(digest))
        held.append(one["name"])
    assert held == [one["name"] for one in vectors]
    assert len(held) == 4


@pytest.mark.evidence
def test_the_recorded_secret_is_packed_byte_for_byte(evidence: Evidence) -> None:
    (one,) = json.loads(evidence.read("sev/secret/vectors.json"))["vectors"]
    keys, iv = (
        SessionKeys(tek=evidence.read(one["tek"]), tik=evidence.read(one["tik"])),
        bytes.fromhex(one["iv"]),
    )
    payload = bytes.fromhex(one["payload"])
    secret = Cipher(algorithms.AES(keys.tek), modes.CTR(iv)).decryptor().update(payload)
    assert evidence.read(one["secrets"][0][1]) in secret
    launch = VerifiedLaunch(measure=bytes.fromhex(one["launch_measure_blob"])[:32])
    packet = pack_secret(launch, secret, keys=keys, iv=iv)
    assert (packet.header.hex(), packet.payload) == (one["header"], payload)
