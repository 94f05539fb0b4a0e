"""Which of Intel's levels a platform has, and what several levels say together. Pure.

Source: Intel, "SGX TDX DCAP Quote Verification Library", sections 4.1.2.4.16 and 4.1.2.4.17, and the comparison
algorithm in the "Provisioning Certification Service API", "Get TDX TCB Info".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import ge
from typing import Final

from enarx.attest.dcap._documents import SvnLevel, TcbInfo, TcbLevel, TcbStatus, TdxModule
from enarx.attest.dcap._pck import Pck

_CURRENT: Final = frozenset(
    {
        TcbStatus.UP_TO_DATE,
        TcbStatus.SW_HARDENING_NEEDED,
        TcbStatus.CONFIGURATION_NEEDED,
        TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
    }
)
_CONFIGURE: Final = frozenset(
    {
        TcbStatus.CONFIGURATION_NEEDED,
        TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
        TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
    }
)
_OUTDATED: Final = frozenset({TcbStatus.OUT_OF_DATE, TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED})


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbVerdict:
    """The status that follows from all parts of a platform's TCB, and the parts."""

    status: TcbStatus
    level: TcbLevel
    qe: SvnLevel
    module: SvnLevel | None
    """Only TDX modules from version 1 on have levels of their own."""
    advisories: frozenset[str]
    """Of the levels that platform, module and quoting enclave have."""


def make_verdict(status: TcbStatus, level: TcbLevel, qe: SvnLevel, module: SvnLevel | None) -> TcbVerdict:
    """Put the parts together."""
    advisories = frozenset((*level.advisories, *qe.advisories, *(module.advisories if module else ())))
    return TcbVerdict(status=status, level=level, qe=qe, module=module, advisories=advisories)


def sgx_level(info: TcbInfo, pck: Pck) -> TcbLevel | None:
    """The newest level all of whose SGX components and PCESVN the platform has."""
    return next((level for level in info.levels if _has(pck, level)), None)


def tdx_level(info: TcbInfo, pck: Pck, tee_tcb_svn: bytes) -> TcbLevel | None:
    """The newest level that the platform has in SGX and in TDX components.

    The first two TDX components are the module's; from module version 1 on they are judged by its own levels.
    """
    skip = 2 if tee_tcb_svn[1] else 0
    have = tee_tcb_svn[skip:]
    return next(
        (
            level
            for level in info.levels
            if level.tdx is not None and _has(pck, level) and all(map(ge, have, level.tdx[skip:]))
        ),
        None,
    )


def _has(pck: Pck, level: TcbLevel) -> bool:
    return pck.pce_svn >= level.pce_svn and all(map(ge, pck.components, level.sgx))


def svn_level(levels: Iterable[SvnLevel], isv_svn: int) -> SvnLevel | None:
    """The newest level of an enclave or module with this security version."""
    return next((level for level in levels if isv_svn >= level.isv_svn), None)


def find_module(info: TcbInfo, version: int) -> TdxModule | None:
    """The identity of the TDX module of this version; version 0 has none of its own."""
    if version == 0:
        return info.module
    name = f"TDX_{version:02X}"
    return next((module for module in info.modules if module.id == name), None)


def converge(platform: TcbStatus, part: TcbStatus) -> TcbStatus:
    """What a platform's status becomes through that of a part of it (quoting enclave, TDX module)."""
    if part is TcbStatus.REVOKED:
        return TcbStatus.REVOKED
    if part is TcbStatus.OUT_OF_DATE and platform in _CURRENT:
        outdated = TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED
        return outdated if platform in _CONFIGURE else TcbStatus.OUT_OF_DATE
    return platform


def is_relaunch_enough(
    *, sgx: TcbStatus, converged: TcbStatus, module: TcbStatus | None, qe: TcbStatus
) -> bool:
    """Say whether the status is old only because the TD was launched under an older module.

    That the module loaded now is current is for ``has_current_module`` to say.
    """
    return (
        qe is TcbStatus.UP_TO_DATE
        and sgx in _CURRENT
        and converged in _OUTDATED
        and module is TcbStatus.OUT_OF_DATE
    )


def has_current_module(info: TcbInfo, module: TdxModule, tee_tcb_svn2: bytes) -> bool:
    """Say whether the module loaded now, ``module``, is the newest that Intel knows."""
    newest = info.levels[0].tdx
    least = newest[0] if newest and not module.levels else module.levels[0].isv_svn
    return newest is not None and tee_tcb_svn2[0] >= least and tee_tcb_svn2[2] >= newest[2]


def relaunch_status(sgx: TcbStatus, converged: TcbStatus) -> TcbStatus:
    """The status of a platform that is current while the TD was launched before it was."""
    if sgx in _CONFIGURE or converged in _CONFIGURE:
        return TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED
    return TcbStatus.TD_RELAUNCH_ADVISED
