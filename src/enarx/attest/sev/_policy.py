"""What a policy may ask of the launch of a SEV or SEV-ES guest. Each key is one line of docs/reference/policy.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from enarx.attest.policy import TeeRules
from enarx.attest.rules import (
    Exactly,
    Rule,
    boolean,
    denied,
    digests,
    integers,
    key,
    octets,
    table,
    version,
)
from enarx.attest.sev._session import DIGEST_BYTES

_LAUNCH: Final = "launch the guest with the strict policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class SevPolicyRules:
    """Bits of the POLICY with which the guest was launched. NODBG is ``debug``, ES is the section."""

    noks: Rule = key(
        boolean,
        path="noks",
        field="noks",
        default=Exactly(True),
        advice=f"other guests of this owner may share its memory key; {_LAUNCH}",
    )
    nosend: Rule = key(
        boolean,
        path="nosend",
        field="nosend",
        default=Exactly(True),
        advice=f"it may be sent to another platform; {_LAUNCH}",
    )
    domain: Rule | None = key(
        boolean,
        path="domain",
        field="domain",
        default=None,
        advice="the policy is to keep the guest on platforms of its domain",
    )
    sev: Rule = key(
        boolean,
        path="sev",
        field="sev",
        default=Exactly(True),
        advice=f"it may be sent to a platform without SEV; {_LAUNCH}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SevRules(TeeRules):
    """The sections ``[sev]`` and ``[sev-es]``."""

    measurement: Rule = key(
        digests(DIGEST_BYTES),
        path="measurement",
        field="measure",
        advice="not an image that was expected; compare with `enarx measure sev` of the one you mean to run",
    )
    debug: Rule = key(
        boolean,
        path="debug",
        field="policy.nodbg",
        default=Exactly(False),
        advice="the host can read the memory of this guest; launch it with NODBG",
    )
    policy: SevPolicyRules = table(
        SevPolicyRules, path="detail.flags", field="policy", default=SevPolicyRules()
    )
    min_policy_api: Rule | None = key(
        version(2),
        path="detail.policy_api",
        field="policy.api",
        default=None,
        advice="launch the guest with a policy that asks for newer firmware wherever it goes",
    )
    min_firmware: Rule | None = key(
        version(3),
        path="detail.firmware",
        field=("api", "build"),
        default=None,
        advice="update the firmware of the platform; the three numbers are API major, API minor, build",
    )
    build: Rule | None = key(
        integers(0, 255),
        path="detail.evidence.measure.build",
        field="build",
        default=None,
        advice="another build of the firmware than those you know",
    )
    platforms: Rule | None = key(
        octets(32),
        path="chip_id",
        field="cek.key",
        default=None,
        advice="this platform (SHA-256 of the key of its CEK) is not on the list",
    )
    denied_platforms: Rule | None = key(
        denied(32),
        path="chip_id",
        field="cek.key",
        default=None,
        any_allowed=False,
        advice="this platform (SHA-256 of the key of its CEK) is known to be compromised",
    )
