"""Fetch collateral from the vendors' services: the only part of ``enarx.attest`` that uses the network.

    fetched = fetch_collateral([report], now=now, cache=directory)
    claims = verifier.verify(report, collateral=fetched.collateral, binding=challenge, now=now)

Nothing that is fetched or cached is trusted; verification judges it, and never imports this package.
"""

from enarx.attest.fetch._amd_kds import AMD_KDS
from enarx.attest.fetch._fetch import Fetched, File, Origin, Services, fetch_collateral
from enarx.attest.fetch._http import Answer, Client
from enarx.attest.fetch._intel_pcs import INTEL_PCS
from enarx.attest.fetch.errors import CollateralUnavailable

__all__ = [
    "AMD_KDS",
    "INTEL_PCS",
    "Answer",
    "Client",
    "CollateralUnavailable",
    "Fetched",
    "File",
    "Origin",
    "Services",
    "fetch_collateral",
]
