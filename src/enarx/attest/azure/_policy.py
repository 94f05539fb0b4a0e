"""What a policy may ask of a confidential virtual machine of Azure: all of the hardware, and of its virtual TPM."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from enarx.attest.azure._hcl import USER_DATA_BYTES
from enarx.attest.rules import Anything, Exactly, Rule, boolean, key, octets, table, texts
from enarx.attest.snp import SnpRules
from enarx.attest.tdx import TdxRules
from enarx.attest.tpm import TpmRules


@dataclass(frozen=True, slots=True, kw_only=True)
class VmRules:
    """What the paravisor says of the virtual machine."""

    secure_boot: Rule = key(
        boolean,
        path="secure_boot",
        field="vm-configuration.secure-boot",
        default=Exactly(True),
        advice="anything may boot; create the virtual machine with secure boot",
    )
    console_enabled: Rule | None = key(
        boolean,
        path="console_enabled",
        field="vm-configuration.console-enabled",
        default=None,
        advice="the operator has a console",
    )
    tpm_persisted: Rule | None = key(
        boolean,
        path="tpm_persisted",
        field="vm-configuration.tpm-persisted",
        default=None,
        advice="the state of the virtual TPM is kept otherwise",
    )
    vm_unique_id: Rule | None = key(
        texts,
        path="vm_unique_id",
        field="vm-configuration.vmUniqueId",
        default=None,
        advice="another virtual machine",
    )
    user_data: Rule | None = key(
        octets(USER_DATA_BYTES),
        path="user_data",
        field="user-data",
        default=None,
        advice="the guest gave the paravisor something else to vouch for",
    )


def _lint(vtpm: TpmRules) -> Iterator[str]:
    if isinstance(vtpm.measurement, Anything) and vtpm.pcrs is None:
        yield "vtpm.measurement: any guest is accepted that the paravisor starts; name its PCRs in pcrs"


_CERTIFIED: Final = "give the certificate of the attestation key, and its chain to Azure's root"


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSnpRules(SnpRules):
    """The section ``[azure-snp]``: ``[snp]``, measuring the paravisor; its table ``vtpm`` is ``[tpm]``."""

    vm: VmRules = table(VmRules, path="detail.runtime", field="runtime", default=VmRules())
    vtpm: TpmRules = table(TpmRules, path="detail.vtpm", field="vtpm", default=dataclasses.MISSING)
    ak_certified: Rule | None = key(
        boolean, path="detail.ak_certified", field=(), default=None, advice=_CERTIFIED
    )

    def lint(self) -> Iterator[str]:
        """Say what in this section contradicts itself or does nothing."""
        yield from SnpRules.lint(self)
        yield from _lint(self.vtpm)


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureTdxRules(TdxRules):
    """The section ``[azure-tdx]``: ``[tdx]``, measuring the paravisor; its table ``vtpm`` is ``[tpm]``."""

    vm: VmRules = table(VmRules, path="detail.runtime", field="runtime", default=VmRules())
    vtpm: TpmRules = table(TpmRules, path="detail.vtpm", field="vtpm", default=dataclasses.MISSING)
    ak_certified: Rule | None = key(
        boolean, path="detail.ak_certified", field=(), default=None, advice=_CERTIFIED
    )

    def lint(self) -> Iterator[str]:
        """Say what in this section contradicts itself or does nothing."""
        yield from TdxRules.lint(self)
        yield from _lint(self.vtpm)
