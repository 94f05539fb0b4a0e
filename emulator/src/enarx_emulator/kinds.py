"""Which machines there are."""

from __future__ import annotations

from typing import Final

KINDS: Final = ("sev", "sev-es", "snp", "sgx", "tdx", "pef")
