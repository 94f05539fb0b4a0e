"""The verifiers that this package has. Available is not enabled: a caller names those it wants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Final

from enarx.attest.azure import VERIFIER as AZURE
from enarx.attest.cca import VERIFIER as CCA
from enarx.attest.errors import PolicyError
from enarx.attest.nitro import VERIFIER as NITRO
from enarx.attest.pef import VERIFIER as PEF
from enarx.attest.sev import VERIFIER as SEV
from enarx.attest.sgx import VERIFIER as SGX
from enarx.attest.snp import VERIFIER as SNP
from enarx.attest.tdx import VERIFIER as TDX
from enarx.attest.tee import TeeVerifier
from enarx.attest.tpm import VERIFIER as TPM

_VERIFIERS: Final[tuple[TeeVerifier, ...]] = (SNP, SEV, SGX, TDX, NITRO, TPM, AZURE, CCA, PEF)

BUILTIN: Final[Mapping[str, TeeVerifier]] = {verifier.name: verifier for verifier in _VERIFIERS}
"""By name."""

ENTRY_POINTS: Final = "enarx.verifiers"
"""Other distributions offer verifiers in this group; installing one enables nothing."""


def select(names: Iterable[str]) -> tuple[TeeVerifier, ...]:
    """Turn names into verifiers: built in, or offered by an installed distribution. Raises ``PolicyError``."""
    chosen: list[TeeVerifier] = []
    for name in names:
        if name in BUILTIN:
            chosen.append(BUILTIN[name])
            continue
        offered = entry_points(group=ENTRY_POINTS, name=name)  # looks through all that is installed
        if len(offered) != 1:
            known = ", ".join(sorted(BUILTIN))
            raise PolicyError(f"no verifier is called {name!r}", hint=f"built in are {known}")
        chosen.append(next(iter(offered)).load())
    return tuple(chosen)
