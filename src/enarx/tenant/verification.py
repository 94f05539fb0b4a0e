"""From the evidence of a session to a verdict: what this release accepts unless the tenant says otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from enarx import __version__
from enarx.attest import (
    AuthenticityOnly,
    Cache,
    Claims,
    Collateral,
    Policy,
    TrustAnchors,
    Verifier,
    registry,
)
from enarx.attest.claims import Tee
from enarx.attest.launch import PreBoot
from enarx.tcb.binding import Binding
from enarx.tenant.reference import KeepImage, attested_tees, reference_values, started_section


def default_policy(
    image: KeepImage, *, other_roots: bool, other_keys: bool = False, tees: Iterable[Tee] | None = None
) -> str:
    """Write the policy that accepts exactly ``image`` on ``tees`` and nothing else, as TOML.

    ``other_roots`` says that the tenant named roots that are no vendor's; without that such roots are refused.
    ``other_keys``: keys of machines, which are what vouches for PEF, and must not found the certificates of other TEEs.
    Raises ``Unavailable`` when the image's files cannot be read.
    """
    lines = ["version = 1", f'name = "enarx {__version__}: exactly the keep image of this release"']
    for tee in attested_tees(image) if tees is None else tees:
        if tee is Tee.TPM:
            lines += ["", started_section(image)]
            continue
        values = reference_values(image, tee).items()
        lines += ["", f"[{tee.value}]", *(f'{name} = ["{value.hex()}"]' for name, value in values)]
        if other_roots or (other_keys and tee is Tee.PEF):
            lines.append('vendor_root = "any"  # roots that the tenant named are trusted, too')
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What one tenant trusts: anchors and a policy, in its own words. Made once, used for many keeps."""

    policy_text: str
    roots: Mapping[str, bytes] = field(default_factory=dict)
    """Further roots that the tenant trusts (certificates or keys, PEM or DER), by the names that verdicts give them."""
    tees: tuple[str, ...] = ()
    """Names of the verifiers to use; all that are built in and that the policy has a section for, if empty."""
    policy: Policy = field(init=False)
    anchors: TrustAnchors = field(init=False)
    cache: Cache = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        verifiers = registry.select(self.tees or registry.BUILTIN)
        anchors = TrustAnchors.vendor()
        for name, root in self.roots.items():
            anchors = anchors.adding(root, name=name)
        object.__setattr__(self, "policy", Policy.parse(self.policy_text, verifiers))
        object.__setattr__(self, "anchors", anchors)
        object.__setattr__(self, "cache", Cache())

    @classmethod
    def release(
        cls, image: KeepImage, *, roots: Mapping[str, bytes] | None = None, tpm: bool = False
    ) -> Trust:
        """Trust what this release's default policy accepts.

        ``tpm``: also a machine that encrypts no memory and whose TPM is among ``roots``. Raises ``Unavailable``.
        """
        wanted = (*attested_tees(image), Tee.TPM) if tpm else attested_tees(image)
        sections = [tee for tee in wanted if any(tee in it.rules for it in registry.BUILTIN.values())]
        named = TrustAnchors.none()
        for name, root in (roots or {}).items():
            named = named.adding(root, name=name)
        certified = [anchor.certificate is not None for anchor in named.anchors]
        text = default_policy(image, other_roots=any(certified), other_keys=not all(certified), tees=sections)
        return cls(policy_text=text, roots=roots or {})

    def judge(
        self,
        evidence: bytes,
        collateral: Collateral,
        binding: Binding,
        *,
        now: datetime,
        launch: PreBoot | None = None,
        policy: AuthenticityOnly | None = None,
    ) -> Claims:
        """Verify and appraise; ``launch`` is that of a TEE that attests before boot.

        With ``policy`` nothing is appraised: to see what refused evidence says. Raises the errors of
        ``Verifier.verify``: nothing else ever accepts.
        """
        verifier = Verifier(
            tees=registry.select(self.tees or registry.BUILTIN),
            anchors=self.anchors,
            policy=self.policy if policy is None else policy,
            cache=self.cache,
        )
        return verifier.verify(
            evidence, collateral=collateral, binding=binding.report_data(), now=now, launch=launch
        )


def summary(claims: Claims) -> dict[str, str]:
    """Say in a few words what was accepted, for people and for the audit record."""
    return {
        "tee": claims.tee.value,
        "measurement": claims.measurement.hex(),
        "root": str(claims.root),
        "memory": "encrypted" if claims.memory_protected else "open",
        "tcb_status": claims.tcb_status or "",
        "policy": (claims.policy_digest or b"").hex(),
        "checks": sha256("\n".join(check.name for check in claims.checks).encode()).hexdigest(),
    }
