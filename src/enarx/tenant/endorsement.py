"""Where a tenant gets collateral from. Wherever it is from, it proves nothing that the tenant's roots do not sign."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

from enarx.api.agent import Platform
from enarx.attest import Collateral, Document, Kind
from enarx.tenant.agent_calls import HostMisbehaved, printable


class CollateralFrom(Enum):
    """Whom to ask."""

    HOST = "host"
    """The host itself, which has it at hand."""
    VENDOR = "vendor"
    """The vendors' services, over the network."""


def read_platform(platform: Platform, tee: str) -> Collateral:
    """Take what a host says of its machine. Its roots are left aside. Raises ``Malformed``, ``HostMisbehaved``."""
    if platform.tee != tee:
        raise HostMisbehaved(
            f"asked for collateral of {tee}, the host sent that of {printable(platform.tee)}"
        )
    documents = []
    for item in platform.documents:
        try:
            documents.append(Document(Kind(item.kind), item.data))
        except ValueError:
            raise HostMisbehaved(f"collateral of an unknown kind: {item.kind[:40]!a}") from None
    return Collateral(
        certificates=tuple(platform.certificates), crls=tuple(platform.crls), documents=tuple(documents)
    )


def fetch(evidence: bytes, now: datetime) -> Collateral:
    """Ask the vendors for what ``evidence`` needs. Raises ``EnarxError``."""
    from enarx.attest.fetch import fetch_collateral  # few need it, and it takes its time to load

    return fetch_collateral([evidence], now=now).collateral
