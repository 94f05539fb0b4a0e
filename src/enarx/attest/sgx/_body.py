"""SGX evidence: a DCAP quote whose body is the report of an enclave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from enarx.attest.dcap import EnclaveReport, Quote, TeeType, parse_enclave_report, parse_quote
from enarx.attest.errors import MalformedEvidence


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxQuote:
    """A quote and its body. Nothing here was verified."""

    quote: Quote
    report: EnclaveReport

    def fields(self) -> Mapping[str, object]:
        """Every field by its dotted name; those of the enclave's report without a prefix."""
        return {**self.report.fields(), **self.quote.fields()}


def parse_sgx_quote(data: bytes) -> SgxQuote:
    """Read a quote of version 3, 4 or 5. Raises ``Malformed``."""
    quote = parse_quote(data)
    if quote.tee_type is not TeeType.SGX:
        raise MalformedEvidence("the quote is of a TD, not of an enclave")
    return SgxQuote(quote=quote, report=parse_enclave_report(quote.body))
