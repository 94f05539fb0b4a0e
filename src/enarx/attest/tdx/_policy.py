"""What a policy may ask of a TDX quote. Each key is one line of docs/reference/policy.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from enarx.attest.checks import show
from enarx.attest.dcap import DcapRules
from enarx.attest.errors import PolicyError
from enarx.attest.rules import Exactly, OneOf, Rule, boolean, digests, integers, key, octets, table


@dataclass(frozen=True, slots=True)
class Components:
    """A minimum for each of the first components."""

    minimum: tuple[int, ...]

    def admits(self, value: object) -> bool:
        """Say whether no component is below its minimum."""
        return isinstance(value, bytes) and all(
            have >= least for have, least in zip(value, self.minimum, strict=False)
        )

    def __str__(self) -> str:
        return f"component by component at least {show(self.minimum)}"


def components(value: object) -> Rule:
    """A list of 1 to 16 integers from 0 to 255, one a component, not all zero."""
    if not isinstance(value, list) or not 1 <= len(value) <= 16 or not any(value):
        raise PolicyError(f"expected a list of 1 to 16 minimums that are not all zero, found {value!r}")
    if not all(type(one) is int and 0 <= one <= 255 for one in value):
        raise PolicyError(f"expected integers from 0 to 255, found {value!r}")
    return Components(tuple(value))


_VMM: Final = "the host launched the TD with other parameters"


@dataclass(frozen=True, slots=True, kw_only=True)
class TdAttributeRules:
    """Bits of the TD's ATTRIBUTES: ``true`` or ``false`` must be exactly so. The debug bits are ``debug``."""

    sept_ve_disable: Rule = key(
        boolean,
        path="sept_ve_disable",
        field="sept_ve_disable",
        default=Exactly(True),
        advice="the host can feed the guest's kernel exceptions; launch the TD with SEPT_VE_DISABLE",
    )
    migratable: Rule = key(
        boolean,
        path="migratable",
        field="migratable",
        default=Exactly(False),
        advice="a migration TD can move it elsewhere; launch it without",
    )
    lass: Rule | None = key(boolean, path="lass", field="lass", default=None, advice=_VMM)
    pks: Rule | None = key(boolean, path="pks", field="pks", default=None, advice=_VMM)
    kl: Rule | None = key(boolean, path="kl", field="kl", default=None, advice=_VMM)
    tpa: Rule = key(
        boolean,
        path="tpa",
        field="tpa",
        default=Exactly(False),
        advice="only the platform's provisioning agent has it",
    )
    perfmon: Rule | None = key(boolean, path="perfmon", field="perfmon", default=None, advice=_VMM)


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxRules(DcapRules):
    """The section ``[tdx]``."""

    measurement: Rule = key(
        digests(48),
        path="measurement",
        field="mrtd",
        advice="not an image that was expected; compare with `enarx measure tdx` of the one you mean to run",
    )
    debug: Rule = key(
        boolean,
        path="debug",
        field=tuple(f"td_attributes.{name}" for name in ("debug", "hgs_plus_prof", "perf_prof", "pmt_prof")),
        default=Exactly(False),
        advice="the operator can look into the TD; launch it without DEBUG and profiling bits",
    )
    mrseam: Rule | None = key(
        digests(48),
        path="detail.report.mrseam",
        field="mrseam",
        default=None,
        advice="another build of the TDX module",
    )
    min_tee_tcb_svn: Rule | None = key(
        components,
        path="detail.report.tee_tcb_svn",
        field="tee_tcb_svn",
        default=None,
        advice="update the TDX module and the microcode, then launch the TD again",
    )
    td_attributes: TdAttributeRules = table(
        TdAttributeRules,
        path="detail.report.td_attributes",
        field="td_attributes",
        default=TdAttributeRules(),
    )
    xfam: Rule | None = key(
        integers(0, 2**63 - 1), path="detail.report.xfam", field="xfam", default=None, advice=_VMM
    )
    mr_config_id: Rule | None = key(
        octets(48), path="detail.report.mr_config_id", field="mr_config_id", default=None, advice=_VMM
    )
    mr_owner: Rule | None = key(
        octets(48), path="detail.report.mr_owner", field="mr_owner", default=None, advice=_VMM
    )
    mr_owner_config: Rule | None = key(
        octets(48), path="detail.report.mr_owner_config", field="mr_owner_config", default=None, advice=_VMM
    )
    service_td: Rule = key(
        octets(48),
        path="detail.report.service_td",
        field="mr_service_td",
        default=OneOf(frozenset({bytes(48)})),
        advice="another TD is bound to this one and has power over it; name its hash if it may",
    )
    rtmr0: Rule | None = key(
        octets(48),
        path="detail.report.rtmr0",
        field="rtmr0",
        default=None,
        advice="other firmware configuration; replay the event log to see which",
    )
    rtmr1: Rule | None = key(
        octets(48),
        path="detail.report.rtmr1",
        field="rtmr1",
        default=None,
        advice="another boot loader or kernel; replay the event log to see which",
    )
    rtmr2: Rule | None = key(
        octets(48),
        path="detail.report.rtmr2",
        field="rtmr2",
        default=None,
        advice="another initrd, command line or application; replay the event log to see which",
    )
    rtmr3: Rule | None = key(
        octets(48),
        path="detail.report.rtmr3",
        field="rtmr3",
        default=None,
        advice="the guest measured something else while it ran",
    )
    event_log: Rule | None = key(
        boolean,
        path="detail.all_explained",
        field=("rtmr0", "rtmr1", "rtmr2", "rtmr3"),
        default=None,
        advice="give the event logs that lead to all registers that are not zero",
    )
