"""What a policy may ask of a CCA token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from enarx.attest.cca._token import (
    DIGEST_BYTES,
    IMPLEMENTATION_ID_BYTES,
    INSTANCE_ID_BYTES,
    MAX_CONFIG_BYTES,
    PERSONALIZATION_BYTES,
    HashAlgorithm,
    Lifecycle,
)
from enarx.attest.checks import show
from enarx.attest.policy import TeeRules
from enarx.attest.rules import Anything, Exactly, OneOf, Rule, boolean, denied, digests, key, octets, words


@dataclass(frozen=True, slots=True)
class AllOf:
    """Nothing but what is listed."""

    allowed: frozenset[bytes]

    def admits(self, value: object) -> bool:
        """Say whether there are some, and all are listed."""
        return isinstance(value, frozenset) and bool(value) and value <= self.allowed

    def __str__(self) -> str:
        return f"none but {show(self.allowed)}"


def all_of(value: object) -> Rule:
    """A non-empty list of digests, outside of which there is nothing."""
    found = digests(*DIGEST_BYTES)(value)
    assert isinstance(found, OneOf)  # noqa: S101 -- what digests makes
    return AllOf(found.values)


_EXTENDED = "the realm measured something else while it ran"


@dataclass(frozen=True, slots=True, kw_only=True)
class CcaRules(TeeRules):
    """The section ``[cca]``. ``measurement`` is the RIM; the firmware below the realm is ``software_components``."""

    measurement: Rule = key(
        digests(*DIGEST_BYTES),
        path="measurement",
        field="realm.rim",
        advice="not a realm that was expected",
    )
    debug: Rule = key(
        boolean,
        path="debug",
        field="platform.security_lifecycle",
        default=Exactly(False),
        advice="the platform is open for debugging: its owner can look into realms",
    )
    vendor_root: Rule = key(
        boolean,
        path="root.is_vendor",
        field=(),
        default=Exactly(True),
        advice='Arm publishes no root for platform keys; write vendor_root = "any" where you enrolled the key yourself',
    )
    software_components: Rule = key(
        all_of,
        path="detail.platform.measurements",
        field="platform.software_components",
        advice="firmware that is not on the list: every component of the platform must be, its monitor (RMM) above all",
    )
    signers: Rule | None = key(
        all_of,
        path="detail.platform.signers",
        field="platform.software_components",
        default=None,
        advice="firmware of a signer that is not on the list",
    )
    lifecycle: Rule = key(
        words(Lifecycle),
        path="detail.lifecycle",
        field="platform.security_lifecycle",
        default=OneOf(frozenset({Lifecycle.SECURED})),
        advice="the platform is not in the state in which it keeps secrets",
    )
    implementation_id: Rule | None = key(
        octets(IMPLEMENTATION_ID_BYTES),
        path="detail.platform.implementation_id",
        field="platform.implementation_id",
        default=None,
        advice="another model of platform",
    )
    instance_id: Rule | None = key(
        octets(INSTANCE_ID_BYTES),
        path="detail.platform.instance_id",
        field="platform.instance_id",
        default=None,
        advice="this platform is not on the list",
    )
    denied_instances: Rule | None = key(
        denied(INSTANCE_ID_BYTES),
        path="detail.platform.instance_id",
        field="platform.instance_id",
        default=None,
        any_allowed=False,
        advice="this platform is known to be compromised",
    )
    config: Rule | None = key(
        octets(*range(1, MAX_CONFIG_BYTES + 1)),
        path="detail.platform.config",
        field="platform.config",
        default=None,
        advice="the platform is configured otherwise",
    )
    hash_algorithm: Rule | None = key(
        words(HashAlgorithm),
        path="detail.realm.hash_algorithm",
        field="realm.hash_algorithm",
        default=None,
        advice="the realm is measured with another hash",
    )
    personalization_value: Rule | None = key(
        octets(PERSONALIZATION_BYTES),
        path="detail.realm.personalization_value",
        field="realm.personalization_value",
        default=None,
        advice="the host started the realm for something or someone else",
    )
    rem0: Rule | None = key(
        octets(*DIGEST_BYTES), path="detail.realm.rem0", field="realm.rem0", default=None, advice=_EXTENDED
    )
    rem1: Rule | None = key(
        octets(*DIGEST_BYTES), path="detail.realm.rem1", field="realm.rem1", default=None, advice=_EXTENDED
    )
    rem2: Rule | None = key(
        octets(*DIGEST_BYTES), path="detail.realm.rem2", field="realm.rem2", default=None, advice=_EXTENDED
    )
    rem3: Rule | None = key(
        octets(*DIGEST_BYTES), path="detail.realm.rem3", field="realm.rem3", default=None, advice=_EXTENDED
    )

    def lint(self) -> Iterator[str]:
        """Say what in this section contradicts itself or does nothing."""
        if isinstance(self.software_components, Anything):
            yield "software_components: any firmware may run below the realm, and it sees everything"
        if not self.lifecycle.admits(Lifecycle.SECURED):
            yield "lifecycle: only platforms that keep no secrets are accepted"
