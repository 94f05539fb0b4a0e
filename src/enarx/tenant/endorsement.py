"""Where a tenant gets collateral from. Wherever it is from, it proves nothing that the tenant's roots do not sign."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
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


CollateralChoice = CollateralFrom | Collateral | Callable[[bytes], Collateral]
"""Whom to ask, what there is already, or a function that finds it for some evidence."""


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


def collateral_for(choice: CollateralChoice, told: Collateral) -> Callable[[bytes], Collateral]:
    """Give what finds collateral for the evidence of one keep; ``told`` is what its host says."""
    if isinstance(choice, Collateral):
        known = told | choice
        return lambda evidence: known
    if choice is CollateralFrom.HOST:
        return lambda evidence: told
    ask = fetch if isinstance(choice, CollateralFrom) else choice
    found: list[Collateral] = []

    def once(evidence: bytes) -> Collateral:
        if not found:  # all evidence of one keep is of one machine
            found.append(told | ask(evidence))
        return found[0]

    return once


def fetch(evidence: bytes) -> Collateral:
    """Ask the vendors for what ``evidence`` needs. Raises ``EnarxError``."""
    from enarx.attest.fetch import fetch_collateral  # few need it, and it takes its time to load

    return fetch_collateral([evidence], now=datetime.now(UTC)).collateral
