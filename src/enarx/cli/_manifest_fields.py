"""How the manifest of an evidence folder spells what each kind of evidence says, beyond a flat table of fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from enarx.attest import Claims
from enarx.attest.cca import CcaDetail, PlatformToken, RealmToken


def different(found: Mapping[str, Any], expected: Mapping[str, Any], path: str = "") -> list[str]:
    """Name what the manifest says otherwise; what it does not say is no difference."""
    wrong: list[str] = []
    for name, value in found.items():
        if isinstance(value, Mapping) and isinstance(expected.get(name), Mapping):
            wrong += different(value, expected[name], f"{path}{name}.")
        elif name in expected and expected[name] != value:
            wrong.append(f"{path}{name}")
    return wrong


def cca_fields(claims: Claims) -> dict[str, Any]:
    """The claims of both tokens by their numbers."""
    detail = claims.detail
    assert isinstance(detail, CcaDetail)  # noqa: S101 -- claims of CCA have it
    return {
        "realm_signature_ok": True,
        "platform_signature_ok": True,
        "rak_binding_ok": True,
        "rak_hash": [detail.realm.public_key_hash_algorithm.name.lower()],
        "realm_claims": _realm(detail.realm),
        "platform_claims": _platform(detail.platform),
    }


def _realm(realm: RealmToken) -> dict[str, Any]:
    found = {
        "265": realm.profile,
        "10": realm.challenge.hex(),
        "44235": realm.personalization_value.hex(),
        "44236": realm.hash_algorithm.value,
        "44237": realm.public_key.hex(),
        "44238": realm.rim.hex(),
        "44239": [value.hex() for value in (realm.rem0, realm.rem1, realm.rem2, realm.rem3)],
        "44240": realm.public_key_hash_algorithm.value,
    }
    return {name: value for name, value in found.items() if value is not None}


def _platform(platform: PlatformToken) -> dict[str, Any]:
    components = [
        {
            "1": one.component_type,
            "2": one.measurement_value.hex(),
            "4": one.version,
            "5": one.signer_id.hex(),
            "6": one.hash_algorithm.value if one.hash_algorithm else None,
        }
        for one in platform.software_components
    ]
    found = {
        "265": platform.profile,
        "10": platform.challenge.hex(),
        "2396": platform.implementation_id.hex(),
        "256": platform.instance_id.hex(),
        "2401": platform.config.hex(),
        "2395": platform.security_lifecycle,
        "2402": platform.hash_algorithm.value,
        "2400": platform.verification_service,
        "2399": [{name: value for name, value in one.items() if value is not None} for one in components],
    }
    return {name: value for name, value in found.items() if value is not None}


DOCUMENTS: Final[Mapping[str, Callable[[Claims], Mapping[str, Any]]]] = {"cca": cca_fields}
"""By the name of the TEE: what the manifest's ``expected`` holds, as far as this reads it."""
