"""Firmware of SEV and SEV-ES: states, sessions, secrets, and the status of every refusal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.emulator.amd.test_snp_firmware import refuses
from tests.evidence import FOLDER, Evidence
from tests.forge import amd
from tests.forge.amd import Randomness
from tests.forge.pki import ec_key

from enarx.attest.measure import hash_kernel
from enarx.attest.sev import (
    STRICT,
    GuestPolicy,
    SecretPacket,
    SessionKeys,
    VerifiedLaunch,
    owner_certificate,
    pack_policy,
    pack_secret,
    parse_certificate,
    parse_launch_measure,
    parse_secret_table,
    prepare_session,
)
from enarx.attest.sev._certs import Algorithm, Usage
from enarx.attest.sev._encode import NO_SIGNATURE, pack_body
from enarx_emulator.amd.certificates import by_platform
from enarx_emulator.amd.chip import product
from enarx_emulator.amd.sev import SevFirmware
from enarx_emulator.amd.status import SevStatus

KEYS = SessionKeys(tek=bytes(range(16)), tik=bytes(range(16, 32)))
POLICY = pack_policy(STRICT, api=(1, 40))
OWNER = "owner of a guest"
PAGE = bytes(4096)


def fresh(*, es: bool = False) -> SevFirmware:
    fuses = amd.vendor().manufacture(product("milan"), amd.setup("sev").seed)
    made = SevFirmware(fuses, random=Randomness())
    made.init(es=es)
    return made


def session(made: SevFirmware, policy: bytes = POLICY) -> bytes:
    pdh = parse_certificate(made.pdh_cert_export()[0]).key
    return prepare_session(pdh, owner=ec_key(OWNER), keys=KEYS, policy=policy, nonce=b"n" * 16, iv=b"i" * 16)


def start(made: SevFirmware, policy: bytes = POLICY) -> int:
    certificate = owner_certificate(ec_key(OWNER).public_key())
    handle = made.launch_start(policy, certificate=certificate, session=session(made, policy))
    made.activate(handle, made.free_asid())
    return handle


def measured(made: SevFirmware, handle: int, policy: bytes = POLICY, data: bytes = PAGE) -> VerifiedLaunch:
    """Measure, and check it as the owner does."""
    said = parse_launch_measure(made.launch_measure(handle), api=made.api, build=made.build)
    return said.check(KEYS.tik, policy=policy, digest=hashlib.sha256(data).digest())


def inject(made: SevFirmware, handle: int, packet: SecretPacket, address: int = 0x1000) -> None:
    made.launch_secret(handle, header=packet.header, payload=packet.payload, address=address)


def test_a_guest_gets_its_secret_in_its_own_memory() -> None:
    made = fresh()
    handle = start(made)
    made.launch_update_data(handle, 0, PAGE)
    launch = measured(made, handle)
    inject(made, handle, pack_secret(launch, b"a secret of 32 bytes in a guest!", keys=KEYS, iv=bytes(16)))
    made.launch_finish(handle)
    assert made.running(handle).memory.read(0x1000, 33) == b"a secret of 32 bytes in a guest!\0"
    assert made.guest_status(handle) == {"policy": POLICY, "asid": 1, "state": 3}


def test_a_secret_is_for_one_launch() -> None:
    """The same image, owner and session, but another launch."""
    made = fresh()
    first, second = start(made), start(made)
    for handle in (first, second):
        made.launch_update_data(handle, 0, PAGE)
    packet = pack_secret(measured(made, first), bytes(16), keys=KEYS, iv=bytes(16))
    measured(made, second)
    with refuses(SevStatus.BAD_MEASUREMENT):
        inject(made, second, packet)
    inject(made, first, packet)


def test_packets_that_were_changed() -> None:
    made = fresh()
    handle = start(made)
    made.launch_update_data(handle, 0, PAGE)
    packet = pack_secret(measured(made, handle), bytes(32), keys=KEYS, iv=bytes(16))
    for header, payload in (
        (b"\2" + packet.header[1:], packet.payload),
        (packet.header[:4] + b"\1" + packet.header[5:], packet.payload),
        (packet.header[:-1] + bytes((packet.header[-1] ^ 1,)), packet.payload),
        (packet.header, b"x" + packet.payload[1:]),
        (packet.header, packet.payload[:16]),
    ):
        with refuses(SevStatus.BAD_MEASUREMENT):
            inject(made, handle, SecretPacket(header=header, payload=payload))
    for header, payload, address, status in (
        (packet.header, packet.payload, 0x1001, SevStatus.INVALID_ADDRESS),
        (packet.header[:-1], packet.payload, 0, SevStatus.INVALID_LENGTH),
        (packet.header, b"", 0, SevStatus.INVALID_LENGTH),
        (packet.header, packet.payload[:-1], 0, SevStatus.INVALID_LENGTH),
        (packet.header, bytes(16400), 0, SevStatus.INVALID_LENGTH),
        (packet.header, packet.payload, 1 << 48, SevStatus.INVALID_ADDRESS),
    ):
        with refuses(status):
            inject(made, handle, SecretPacket(header=header, payload=payload), address)
    with refuses(SevStatus.INVALID_LENGTH):
        made.launch_secret(handle, header=packet.header, payload=packet.payload, address=0, size=16)


def test_sessions_that_do_not_open() -> None:
    made = fresh()
    good, certificate = session(made), owner_certificate(ec_key(OWNER).public_key())
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    small = ec.generate_private_key(ec.SECP256R1()).public_key()
    signing = pack_body(Usage.PEK, Algorithm.ECDSA_SHA256, other) + NO_SIGNATURE * 2
    for given, buffer, policy, status in (
        (certificate, good[:-1], POLICY, SevStatus.INVALID_LENGTH),
        (certificate[:-1], good, POLICY, SevStatus.INVALID_LENGTH),
        (certificate, good, POLICY[:3], SevStatus.INVALID_LENGTH),
        (bytes(2084), good, POLICY, SevStatus.INVALID_CERTIFICATE),
        (signing, good, POLICY, SevStatus.INVALID_CERTIFICATE),
        (owner_certificate(small), good, POLICY, SevStatus.INVALID_CERTIFICATE),
        (owner_certificate(other), good, POLICY, SevStatus.BAD_MEASUREMENT),
        (certificate, bytes(16) + good[16:], POLICY, SevStatus.BAD_MEASUREMENT),
        (certificate, good[:16] + bytes(32) + good[48:], POLICY, SevStatus.BAD_MEASUREMENT),
        (certificate, good[:64] + bytes(32) + good[96:], POLICY, SevStatus.BAD_MEASUREMENT),
        (certificate, good[:96] + bytes(32), POLICY, SevStatus.BAD_MEASUREMENT),
        (certificate, good, pack_policy(GuestPolicy(0), api=(1, 40)), SevStatus.BAD_MEASUREMENT),
    ):
        with refuses(status):
            made.launch_start(policy, certificate=given, session=buffer)
    assert made.platform_status()["state"] == 1
    made.pdh_gen()
    with refuses(SevStatus.BAD_MEASUREMENT):  # prepared for the old key
        made.launch_start(POLICY, certificate=certificate, session=good)


def test_policies_that_the_platform_cannot_meet() -> None:
    made = fresh()
    with refuses(SevStatus.POLICY_FAILURE):
        start(made, pack_policy(STRICT, api=(1, 56)))
    with refuses(SevStatus.POLICY_FAILURE):
        start(made, (int(STRICT) | 64).to_bytes(2, "little") + bytes((1, 40)))
    with refuses(SevStatus.UNSUPPORTED):
        start(made, pack_policy(STRICT | GuestPolicy.ES, api=(1, 40)))
    start(made, pack_policy(STRICT, api=(1, 55)))


def test_what_is_measured_besides_data() -> None:
    made, policy = fresh(es=True), pack_policy(STRICT | GuestPolicy.ES, api=(1, 40))
    handle, plain = start(made, policy), start(made)
    made.launch_update_data(handle, 0, PAGE)
    made.launch_update_vmsa(handle, b"\1" * 4096)
    with refuses(SevStatus.INVALID_LENGTH):
        made.launch_update_vmsa(handle, PAGE[:-1])
    with refuses(SevStatus.UNSUPPORTED):
        made.launch_update_vmsa(plain, PAGE)
    measured(made, handle, policy, PAGE + b"\1" * 4096)


@pytest.mark.parametrize(
    ("address", "data", "status"),
    [
        (8, PAGE, SevStatus.INVALID_ADDRESS),
        (-16, PAGE, SevStatus.INVALID_ADDRESS),
        ((1 << 48) - 16, PAGE, SevStatus.INVALID_ADDRESS),
        (0, b"", SevStatus.INVALID_LENGTH),
        (0, PAGE[:-1], SevStatus.INVALID_LENGTH),
    ],
)
def test_data_that_cannot_be_loaded(address: int, data: bytes, status: SevStatus) -> None:
    made = fresh()
    handle = start(made)
    with refuses(status):
        made.launch_update_data(handle, address, data)


def test_commands_in_the_wrong_order() -> None:
    made = fresh()
    handle = start(made)
    packet = SecretPacket(header=bytes(52), payload=bytes(16))
    early: list[Callable[[], object]] = [
        lambda: inject(made, handle, packet),
        lambda: made.launch_finish(handle),
    ]
    late: list[Callable[[], object]] = [
        lambda: made.launch_update_data(handle, 0, PAGE),
        lambda: made.launch_measure(handle),
    ]
    for act in early:
        with refuses(SevStatus.INVALID_GUEST_STATE):
            act()
    made.launch_measure(handle)
    for act in late:
        with refuses(SevStatus.INVALID_GUEST_STATE):
            act()
    made.launch_finish(handle)
    for act in early + late:
        with refuses(SevStatus.INVALID_GUEST_STATE):
            act()


def test_activation() -> None:
    made = fresh()
    handle = made.launch_start(POLICY)
    for act in (
        lambda: made.launch_update_data(handle, 0, PAGE),
        lambda: made.deactivate(handle),
        lambda: made.dbg_decrypt(handle, 0, 16),
    ):
        with refuses(SevStatus.INACTIVE):
            act()
    with refuses(SevStatus.INVALID_ASID):
        made.activate(handle, 0)
    made.activate(handle, 3)
    with refuses(SevStatus.ACTIVE):
        made.activate(handle, 4)
    with refuses(SevStatus.ACTIVE):
        made.decommission(handle)
    other = made.launch_start(POLICY)
    with refuses(SevStatus.ASID_OWNED):
        made.activate(other, 3)
    made.deactivate(handle)  # it never ran, so it left nothing behind
    made.activate(other, 3)
    made.launch_measure(other)
    made.launch_finish(other)
    made.deactivate(other)
    with refuses(SevStatus.DFFLUSH_REQUIRED):
        made.activate(handle, 3)
    made.df_flush()
    made.activate(handle, 3)


def test_platform_states() -> None:
    made = fresh()
    handle = start(made)
    assert made.platform_status()["state"] == 2
    idle: list[Callable[[], object]] = [made.init, made.platform_reset, made.pek_gen]
    idle.append(lambda: made.pek_cert_import(b"", b""))
    for act in idle:
        with refuses(SevStatus.INVALID_PLATFORM_STATE):
            act()
    made.deactivate(handle)
    made.decommission(handle)
    assert made.platform_status()["state"] == 1
    with refuses(SevStatus.INVALID_PLATFORM_STATE):
        made.launch_measure(handle)
    start(made)
    with refuses(SevStatus.INVALID_GUEST):
        made.launch_measure(99)
    assert made.guest_status(99)["state"] == 0
    made.shutdown()
    down: list[Callable[[], object]] = [made.pdh_cert_export, made.pek_csr, made.pdh_gen]
    down.append(lambda: made.launch_start(POLICY))
    for act in down:
        with refuses(SevStatus.INVALID_PLATFORM_STATE):
            act()
    assert made.platform_status()["guest_count"] == 0
    assert len(made.get_id()) == 64


def test_debugging_is_refused_by_policy() -> None:
    made = fresh()
    handle, open_one = start(made), start(made, pack_policy(GuestPolicy.NOKS, api=(1, 0)))
    for act in (lambda: made.dbg_decrypt(handle, 0, 16), lambda: made.dbg_encrypt(handle, 0, bytes(16))):
        with refuses(SevStatus.POLICY_FAILURE):
            act()
    made.dbg_encrypt(open_one, 0, b"x" * 16)
    assert made.dbg_decrypt(open_one, 0, 16) == b"x" * 16


def test_sharing_a_key_needs_the_same_policy_that_allows_it() -> None:
    made = fresh()
    sharing = pack_policy(GuestPolicy.NODBG, api=(1, 0))
    open_one, strict = made.launch_start(sharing), made.launch_start(POLICY)
    made.launch_start(sharing, share=open_one)
    for policy, share, status in (
        (POLICY, open_one, SevStatus.POLICY_FAILURE),
        (POLICY, strict, SevStatus.POLICY_FAILURE),
        (sharing, 99, SevStatus.INVALID_GUEST),
    ):
        with refuses(status):
            made.launch_start(policy, share=share)


def test_an_owner_takes_the_platform() -> None:
    made = fresh()
    owner = ec_key("owner of the platform")
    csr = made.pek_csr()
    body = csr[:0x414]
    oca_body = pack_body(Usage.OCA, Algorithm.ECDSA_SHA256, owner.public_key())
    oca = oca_body + by_platform(oca_body, Usage.OCA, owner) + NO_SIGNATURE
    pek = body + by_platform(body, Usage.OCA, owner) + NO_SIGNATURE
    stranger = ec_key("nobody in particular")
    other_body = pack_body(Usage.PEK, Algorithm.ECDSA_SHA256, stranger.public_key())
    for brought, by, status in (
        (pek[:-1], oca, SevStatus.INVALID_LENGTH),
        (bytes(2084), oca, SevStatus.INVALID_CERTIFICATE),
        (pek, oca_body + by_platform(oca_body, Usage.OCA, stranger) + NO_SIGNATURE, SevStatus.BAD_SIGNATURE),
        (body + by_platform(body, Usage.OCA, stranger) + NO_SIGNATURE, oca, SevStatus.BAD_SIGNATURE),
        (
            other_body + by_platform(other_body, Usage.OCA, owner) + NO_SIGNATURE,
            oca,
            SevStatus.INVALID_CERTIFICATE,
        ),
    ):
        with refuses(status):
            made.pek_cert_import(brought, by)
    made.pek_cert_import(pek, oca)
    assert made.platform_status()["owner"] == 1
    with refuses(SevStatus.ALREADY_OWNED):
        made.pek_cert_import(pek, oca)
    exported = parse_certificate(made.pdh_cert_export()[1][2084:4168])
    assert exported.key.public_numbers() == owner.public_key().public_numbers()
    made.pek_gen()
    assert made.platform_status()["owner"] == 0


def test_keys_survive_restarts_and_are_renewed_when_asked() -> None:
    made = fresh()
    fuses = amd.vendor().manufacture(product("milan"), amd.setup("sev").seed)

    def keys(one: SevFirmware) -> tuple[bytes, bytes]:
        pdh, chain = one.pdh_cert_export()
        return pdh, chain[:2084]

    first = keys(made)
    again = SevFirmware(fuses, random=Randomness(), saved=made.save())
    again.init()
    assert keys(again) == first
    made.pdh_gen()
    second = keys(made)
    assert second[0] != first[0]
    assert second[1] == first[1]
    made.shutdown()
    made.platform_reset()
    made.init()
    assert keys(made)[1] != first[1]


def test_firmware_is_updated_and_not_rolled_back() -> None:
    made = fresh()
    with refuses(SevStatus.INVALID_PLATFORM_STATE):
        made.download_firmware((1, 56), 1)
    made.shutdown()
    with refuses(SevStatus.BAD_VERSION):
        made.download_firmware((1, 55), 28)
    made.download_firmware((1, 56), 1)
    made.init()
    handle = start(made, pack_policy(STRICT, api=(1, 56)))
    made.launch_update_data(handle, 0, PAGE)
    measured(made, handle, pack_policy(STRICT, api=(1, 56)))


def test_more_guests_than_there_are_identifiers() -> None:
    made = fresh()
    for _ in range(509):
        made.launch_start(POLICY)
    with refuses(SevStatus.RESOURCE_LIMIT):
        made.launch_start(POLICY)


def test_nobody_can_give_a_secret_to_a_guest_without_an_owner() -> None:
    made = fresh()
    handle = made.launch_start(POLICY)
    made.activate(handle, 1)
    launch = VerifiedLaunch(measure=made.launch_measure(handle)[:32])
    with refuses(SevStatus.BAD_MEASUREMENT):
        inject(made, handle, pack_secret(launch, bytes(16), keys=replace(KEYS), iv=bytes(16)))


def recorded(made: SevFirmware, keys: SessionKeys, policy: bytes) -> int:
    """A guest whose owner has these keys."""
    pdh = parse_certificate(made.pdh_cert_export()[0]).key
    buffer = prepare_session(
        pdh, owner=ec_key(OWNER), keys=keys, policy=policy, nonce=bytes(16), iv=bytes(16)
    )
    certificate = owner_certificate(ec_key(OWNER).public_key())
    handle = made.launch_start(policy, certificate=certificate, session=buffer)
    made.activate(handle, 1)
    return handle


NOTHING = hashlib.sha256(b"").hexdigest()
LAUNCHES: list[dict[str, Any]] = (
    json.loads((FOLDER / "sev/launch/vectors.json").read_text())["vectors"] if FOLDER.is_dir() else []
)
LOADED = [one for one in LAUNCHES if "firmware" in one or one.get("launch_digest") == NOTHING]
"""Those of which the record has what was loaded."""


@pytest.mark.evidence
@pytest.mark.parametrize("vector", LOADED, ids=[one["name"] for one in LOADED])
def test_a_recorded_launch_is_measured_as_it_was(vector: dict[str, Any], evidence: Evidence) -> None:
    nonce = bytes.fromhex(vector["mnonce"])
    made = SevFirmware(
        amd.vendor().manufacture(product("milan"), amd.setup("sev").seed),
        api=(vector["api_major"], vector["api_minor"]),
        build=vector["build_id"],
        random=lambda size: nonce[:size],
    )
    made.init()
    tik = bytes.fromhex(vector["tik_hex"]) if "tik_hex" in vector else evidence.read("sev/launch/tik.bin")
    keys = SessionKeys(tek=bytes(16), tik=tik)
    handle = recorded(made, keys, vector["policy"].to_bytes(4, "little"))
    if "firmware" in vector:
        made.launch_update_data(handle, 0, evidence.read(vector["firmware"]))
    if "kernel" in vector:
        kernel, initrd = evidence.read(vector["kernel"]), evidence.read(vector["initrd"])
        table = hash_kernel(kernel, initrd=initrd, cmdline=vector["cmdline"]).table()
        made.launch_update_data(handle, 0x100000, table)
    expected = vector.get("launch_measure_blob") or vector["launch_measure"] + vector["mnonce"]
    assert made.launch_measure(handle).hex() == expected


@pytest.mark.evidence
def test_a_recorded_secret_is_taken_and_decrypted(evidence: Evidence) -> None:
    (one,) = json.loads(evidence.read("sev/secret/vectors.json"))["vectors"]
    made = fresh()
    keys = SessionKeys(tek=evidence.read(one["tek"]), tik=evidence.read(one["tik"]))
    handle = recorded(made, keys, POLICY)
    made.launch_measure(handle)
    packet = SecretPacket(header=bytes.fromhex(one["header"]), payload=bytes.fromhex(one["payload"]))
    with refuses(SevStatus.BAD_MEASUREMENT):  # it was made for another launch
        inject(made, handle, packet)
    made._guest(handle).measure = bytes.fromhex(one["launch_measure_blob"])[:32]
    inject(made, handle, packet)
    made.launch_finish(handle)
    table = parse_secret_table(made.running(handle).memory.read(0x1000, len(packet.payload)))
    assert list(table.values()) == [evidence.read(path) for _, path in one["secrets"]]


@pytest.mark.evidence
@pytest.mark.parametrize("name", ["pdh", "pek", "oca", "cek"])
def test_certificates_are_like_those_of_a_real_platform(name: str, evidence: Evidence) -> None:
    real = parse_certificate(evidence.read(f"sev/naples-platform/{name}.cert"))
    at = ("pdh", "pek", "oca", "cek").index(name) * 2084
    emulated = parse_certificate(amd.sev().platform_chain()[at : at + 2084])
    assert (emulated.usage, emulated.algorithm, emulated.key.curve.name) == (
        real.usage,
        real.algorithm,
        real.key.curve.name,
    )
    assert [(one.usage, one.algorithm) for one in emulated.signatures] == [
        (one.usage, one.algorithm) for one in real.signatures
    ]
    assert any(real.api)
    assert emulated.api == (1, 55)
