"""What the model checker finds: attacks on bindings that others use, and none on ours."""

from __future__ import annotations

import pytest
from tests.model.dolev_yao import FIELDS, FOREIGN, OURS, Model, attack, steps
from tests.model.dolev_yao import World as Start

from enarx.tcb.binding import Binding

NONCE_AND_KEY = frozenset({"nonce", "key"})


def test_relay_attack_is_found_on_a_binding_of_nonce_and_key() -> None:
    """Somebody has the TLS key of a keep, and relays challenges to the genuine hardware (CVE-2026-33697)."""
    found = attack(Model(binding=NONCE_AND_KEY, leaked=frozenset({"A"}), proves_tenant=False))
    assert found == (
        "T reaches the host with A's key",
        "the host connects to A",
        "the host has A attest for host with T's nonce",
        "T accepts and delivers to host",
    )


def test_relay_attack_is_found_on_a_binding_of_the_nonce_alone() -> None:
    """Then no key needs to leak: any genuine keep's evidence serves."""
    found = attack(Model(binding=frozenset({"nonce"}), proves_tenant=False))
    assert found is not None
    assert "T reaches the host with host's key" in found


def test_replay_is_found_on_a_binding_of_the_key_alone() -> None:
    model = Model(binding=frozenset({"key"}), leaked=frozenset({"A"}), proves_tenant=False)
    assert attack(model) is not None


@pytest.mark.parametrize("leaked", [frozenset(), frozenset({"A"}), frozenset({"A", "B"})], ids=sorted)
@pytest.mark.parametrize("proves_tenant", [True, False], ids=["proved", "not proved"])
def test_no_attack_is_found_on_our_binding(leaked: frozenset[str], proves_tenant: bool) -> None:
    assert attack(Model(binding=OURS, leaked=leaked, proves_tenant=proves_tenant)) is None


def test_no_attack_is_found_on_our_binding_with_two_tenants() -> None:
    model = Model(binding=OURS, tenants=("T", "U"), leaked=frozenset({"A"}))
    assert attack(model) is None


def test_no_attack_is_found_on_our_binding_even_with_a_constant_nonce() -> None:
    """The exporter alone is fresh: the nonce is a second line (attack A2)."""
    assert attack(Model(binding=OURS, leaked=frozenset({"A"}), fresh=False)) is None


@pytest.mark.parametrize("field", FIELDS)
def test_no_single_field_of_the_binding_is_all_that_protects(field: str) -> None:
    """Leaving out any one still finds no attack while the tenant proves its key."""
    model = Model(binding=OURS - {field}, leaked=frozenset({"A"}))
    assert attack(model) is None


def test_exporter_and_tenant_key_are_what_protects() -> None:
    """Without both the relay is back, whatever else is bound."""
    model = Model(binding=OURS - {"exporter", "tenant"}, leaked=frozenset({"A"}), proves_tenant=False)
    assert attack(model) is not None


def test_the_exporter_protects_alone() -> None:
    model = Model(
        binding=frozenset({"nonce", "key", "exporter"}), leaked=frozenset({"A"}), proves_tenant=False
    )
    assert attack(model) is None


def test_evidence_of_another_image_is_of_no_use_to_the_host() -> None:
    model = Model(binding=frozenset(), keeps=(("A", FOREIGN),), proves_tenant=False)
    assert attack(model) is None


def test_an_honest_run_ends_with_a_delivery() -> None:
    """The model is not safe because nothing ever happens in it."""
    reached = [
        later
        for first in steps(Model(binding=OURS), Start())
        for later in steps(Model(binding=OURS), first)
        if later.delivered
    ]
    assert [world.history for world in reached] == [
        ("T reaches A", "T accepts and delivers to A"),
        ("T reaches B", "T accepts and delivers to B"),
    ]


def test_the_model_has_the_fields_of_the_code() -> None:
    """The rest of ``Binding`` is empty before a workload is there, or has one value for all keeps."""
    assert set(FIELDS) == Binding.__annotations__.keys() - {"role", "workload", "configuration"}
