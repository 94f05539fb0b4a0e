"""What the owner of a guest keeps of a launch that is attested before it runs: one type a TEE, one file for each."""

from __future__ import annotations

from typing import TypeAlias

from enarx.attest._json import read_object
from enarx.attest.pef import SealedLaunch, parse_sealed, write_sealed
from enarx.attest.sev import LaunchSession, parse_session, write_session

PreBoot: TypeAlias = LaunchSession | SealedLaunch
"""The argument ``launch`` of ``Verifier.verify``: of SEV and SEV-ES, or of PEF."""


def parse_launch(data: bytes) -> PreBoot:
    """Read a session of either kind from JSON; which it is, its names say. Raises ``Malformed``."""
    found = read_object(data, "launch session")
    return parse_sealed(data) if "machine" in found else parse_session(data)


def write_launch(launch: PreBoot) -> str:
    """Write what ``parse_launch`` reads: keep it secret."""
    return write_session(launch) if isinstance(launch, LaunchSession) else write_sealed(launch)
