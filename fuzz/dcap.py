"""Fuzz target: quotes of SGX and TDX, PCK chains and their extensions, TCB info and identities, logs of TDs."""

from __future__ import annotations

import contextlib

from enarx.attest.dcap import parse_pck_chain, parse_qe_identity, parse_quote, parse_tcb_info
from enarx.attest.sgx import parse_sgx_quote
from enarx.attest.tdx import parse_tdx_quote
from enarx.attest.tdx._log import parse_td_log
from enarx.tcb.errors import EnarxError


def one(data: bytes) -> None:
    """Read ``data`` as each of them; what is accepted keeps the bytes that were signed."""
    for parse in (parse_tcb_info, parse_qe_identity):
        try:
            assert parse(data).body in data
        except EnarxError:
            continue
    for parse_list in (parse_pck_chain, parse_td_log):
        with contextlib.suppress(EnarxError):
            parse_list(data)
    try:
        quote = parse_quote(data)
        assert data.startswith(quote.signed)
        assert data.endswith(quote.trailing)
        assert quote.fields()
    except EnarxError:
        return
    for read in (parse_sgx_quote, parse_tdx_quote):
        with contextlib.suppress(EnarxError):
            assert read(data).fields()
    with contextlib.suppress(EnarxError):
        parse_pck_chain(quote.certification_data)
