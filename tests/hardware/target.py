"""The machine that is tried: how its agent is started, and what a tenant computes and trusts for it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

from tests.integration.agent_process import Process
from tests.integration.vm_keep import keep_image

from enarx.api.vm_image import VmImage, read_vm_image
from enarx.attest import Claims, Tee
from enarx.cli._files import load_collateral
from enarx.host.backend import Backend, open_backend
from enarx.tenant import HostAddress, Step, Trust
from enarx.tenant.agent_client import AgentClient
from enarx.tenant.endorsement import CollateralChoice, CollateralFrom
from enarx.tenant.image.vm import tpm_policy, tpm_registers
from enarx.tenant.reference import reference_values
from enarx.tenant.verification import default_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One way to launch VM keeps."""

    backend: str
    tee: Tee
    refused_by: str
    """The check that finds another command line."""
    vendor_serves: bool = False
    """Whether its vendor has a service that evidence is verified with."""
    own_root: bool = False
    """Whether there is no vendor's root: the tenant names the machine's own key."""


TARGETS: Final[Mapping[str, Kind]] = {
    kind.backend: kind
    for kind in (
        Kind(backend="snp", tee=Tee.SNP, refused_by="policy.snp.measurement", vendor_serves=True),
        Kind(backend="tdx", tee=Tee.TDX, refused_by="policy.tdx.rtmr2", vendor_serves=True),
        Kind(backend="sev", tee=Tee.SEV, refused_by="sev.measure"),
        Kind(backend="sev-es", tee=Tee.SEV_ES, refused_by="sev.measure"),
        Kind(backend="pef", tee=Tee.PEF, refused_by="", own_root=True),
        Kind(backend="vm-tpm", tee=Tee.TPM, refused_by="policy.tpm.pcrs", own_root=True),
    )
}


def vm_image(directory: Path | None) -> VmImage:
    """Read the image in ``directory``, or build one."""
    return keep_image() if directory is None else read_vm_image(directory)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What all tests are about."""

    kind: Kind
    emulated: Path | None
    image: VmImage
    folder: Path
    roots: tuple[Path, ...]
    collateral_from: str | None
    policy: Path | None
    amd_certificates: Path | None
    """What AMD published for this chip, for SEV and SEV-ES."""

    def backend(self, name: str = "") -> str:
        """What the owner of the machine gives to ``--backend`` of the agent ``name``."""
        if self.emulated is not None:
            return f"emulated={self.emulated}"
        if self.kind.tee is Tee.TPM:
            return f"vm-tpm={self.folder / f'seeds-{name}'}"  # of which each agent has its own
        return self.kind.backend + (f"={self.amd_certificates}" if self.amd_certificates else "")

    def open(self) -> Backend:
        """Open the backend in this process."""
        return open_backend(self.backend())

    @cached_property
    def expected(self) -> Mapping[str, Sequence[bytes]]:
        """The values that evidence may show, computed from the image; several where QEMU's version decides."""
        if self.kind.tee is Tee.TPM:
            return tpm_registers(self.image)
        return {name: (value,) for name, value in reference_values(self.image, self.kind.tee).items()}

    @property
    def is_vendors(self) -> bool:
        """Whether evidence must lead to a root that is pinned in this release."""
        return self.emulated is None and not self.kind.own_root

    @cached_property
    def collateral(self) -> CollateralChoice:
        """Where a tenant takes collateral from."""
        default = "vendor" if self.is_vendors and self.kind.vendor_serves else "host"
        choice = self.collateral_from or default
        if choice in (it.value for it in CollateralFrom):
            return CollateralFrom(choice)
        return load_collateral([Path(choice)])


class Agent:
    """``enarx host serve`` on this machine. Use it as a context manager."""

    def __init__(self, target: Target, image: Path) -> None:
        self.target = target
        backend = ("--backend", target.backend(image.name))
        options = ("--image", str(image), "--listen", "127.0.0.1:0", "--json")
        self._process = Process("enarx", "host", "serve", *backend, *options)
        self.address = HostAddress.parse(self._process.first["url"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.end()

    @cached_property
    def trust(self) -> Trust:
        """What a tenant trusts who expects the image; without a vendor's root also what the machine says of itself."""
        target, tee = self.target, self.target.kind.tee
        roots = {path.name: path.read_bytes() for path in target.roots}
        if not target.is_vendors and not roots:
            with AgentClient(self.address) as client:
                said = client.platform(tee.value)
            keys = [document.data for document in said.documents if document.kind == "public-key"]
            roots = {f"{tee.value} {at}": root for at, root in enumerate([*said.roots, *keys])}
        if target.policy is not None:
            return Trust(policy_text=target.policy.read_text(), roots=roots)
        if tee is Tee.TPM:
            return Trust(policy_text=tpm_policy(target.image), roots=roots)
        text = default_policy(target.image, other_roots=bool(roots), tees=(tee,))
        return Trust(policy_text=text, roots=roots)

    def options(self, **more: Any) -> dict[str, Any]:
        """What every deployment says."""
        target = self.target
        common = {"trust": self.trust, "image": target.image, "collateral": target.collateral}
        return {**common, "tee": target.kind.tee.value, **more}


@dataclass(slots=True)
class Timings:
    """When the steps of deployments came."""

    tables: dict[str, list[str]] = field(default_factory=dict)

    def observer(self, name: str) -> Observed:
        """Watch one deployment from now on."""
        self.tables[name] = []
        return Observed(self.tables[name])

    def lines(self) -> list[str]:
        """What to print."""
        return [f"{name}: {', '.join(table)}" for name, table in self.tables.items()]


class Observed:
    """Hears of every step, and writes down when."""

    def __init__(self, table: list[str]) -> None:
        self._table, self._start = table, time.monotonic()
        self.steps: list[Step] = []

    def __call__(self, step: Step) -> None:
        self.steps.append(step)
        self._table.append(f"{step.what} {time.monotonic() - self._start:.3f}")


def shows(claims: Claims, expected: Mapping[str, Sequence[bytes]]) -> bool:
    """Say whether evidence shows these values and no others."""
    found = {"measurement": bytes(claims.measurement), **claims.measurements}
    return all(found.get(name) in values for name, values in expected.items())
