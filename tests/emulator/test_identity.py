"""A state directory holds one machine for ever; what is damaged is refused, and nothing is told before it is kept."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Value, decode, encode
from enarx_emulator.errors import EmulatorError
from enarx_emulator.identity import MACHINE, PLATFORM, Identity
from enarx_emulator.kinds import KINDS
from enarx_emulator.state import Memory

SEED = bytes(32)


def identity(
    store: Memory,
    kind: str = "pef",
    *,
    product: str | None = None,
    seed: bytes | None = None,
    fault: str = "",
) -> Identity:
    faults = frozenset([fault]) if fault else frozenset[str]()
    return Identity(store, vendor=Memory(), kind=kind, product=product, seed=seed, faults=faults)


def test_a_machine_is_made_once_and_found_again() -> None:
    store = Memory()
    first = identity(store)
    info = first.machine.command("info", {})
    first.keep()
    assert identity(store).machine.command("info", {}) == info
    assert identity(Memory()).machine.command("info", {}) != info


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "pef"])
def test_the_same_seed_and_vendor_make_the_same_machine(kind: str) -> None:
    """But for PEF, whose key is RSA and has no seed."""
    vendor = Memory()
    made = [Identity(Memory(), vendor=vendor, kind=kind, seed=SEED).machine for _ in range(2)]
    assert made[0].save() == made[1].save()
    infos = [machine.command("info", {}) for machine in made]
    names = infos[0].keys() & {"hwid", "chip_id", "platform_id", "fmspc"}
    assert names
    assert [infos[0][name] for name in names] == [infos[1][name] for name in names]


def test_another_machine_needs_another_directory() -> None:
    store = Memory()
    identity(store, "snp", product="milan", seed=SEED)
    identity(store, "snp")
    identity(store, "snp", product="milan", seed=SEED)
    with pytest.raises(EmulatorError, match="another kind"):
        identity(store, "pef")
    with pytest.raises(EmulatorError, match="another product"):
        identity(store, "snp", product="genoa")
    with pytest.raises(EmulatorError, match="another seed"):
        identity(store, "snp", seed=bytes(31) + b"\1")


def test_what_cannot_be_is_refused_and_leaves_nothing() -> None:
    store = Memory()
    with pytest.raises(EmulatorError, match="expected one of"):
        identity(store, "cca")
    with pytest.raises(EmulatorError, match="at least 16"):
        identity(store, seed=b"short")
    with pytest.raises(EmulatorError, match="does not exist"):
        identity(store, fault="none")
    assert store.names() == []


def test_a_damaged_state_is_refused() -> None:
    store = Memory()
    identity(store).machine.command("info", {})
    intact = store.get(PLATFORM)
    assert intact is not None
    record = decode(intact, max_bytes=1 << 16)
    assert isinstance(record, dict)
    damaged: list[Mapping[str, Value]] = [
        {**record, "version": 2}, {**record, "seed": "text"}, {**record, "product": 7}, {}
    ]  # fmt: skip
    for wrong in damaged:
        store.put(PLATFORM, encode(dict(wrong)))
        with pytest.raises((Malformed, EmulatorError)):
            identity(store)
    store.put(PLATFORM, intact[:-1])
    with pytest.raises(Malformed):
        identity(store)
    store.put(PLATFORM, intact)
    for wrong_machine in (b"", encode([]), encode({"key": b"none"})):
        store.put(MACHINE, wrong_machine)
        with pytest.raises((Malformed, EmulatorError)):
            identity(store).machine.command("info", {})


def test_a_key_is_kept_when_it_is_made() -> None:
    store = Memory()
    made = identity(store)
    before = store.get(MACHINE)
    made.machine.command("info", {})
    made.keep()
    assert store.get(MACHINE) != before


@pytest.mark.parametrize("kind", KINDS)
def test_every_machine_says_the_same_things_of_itself(kind: str) -> None:
    info = identity(Memory(), kind).machine.command("info", {})
    assert (info["kind"], info["emulated"]) == (kind, True)
    assert "EMULATED" in str(info["firmware"])
    assert isinstance(info["product"], str)
    assert isinstance(info["platform_id"], bytes)
    assert isinstance(info["tcb"], dict)
    assert isinstance(info["roots"], list)
    roots = [root for root in info["roots"] if isinstance(root, bytes)]
    assert len(roots) == len(info["roots"]) == (0 if kind == "pef" else 1)
    for root in roots:
        certificate = load_pem_x509_certificate(root).public_bytes(Encoding.DER)
        assert b"EMULATED" in certificate  # in its names, or beside them where a verifier demands AMD's names
