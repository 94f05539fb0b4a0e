"""Fuzz target: what a host agent answers its tenants."""

from __future__ import annotations

import contextlib

from enarx.api.problems import MEDIA_TYPE
from enarx.tcb.errors import EnarxError
from enarx.tenant import agent_calls
from enarx.tenant.endorsement import read_platform

_CALLS = (
    agent_calls.get_info(),
    agent_calls.list_keeps(),
    agent_calls.get_keep("0" * 32),
    agent_calls.create_keep("any", b""),
)


def one(data: bytes) -> None:
    """Read ``data`` as every answer that there is; raises nothing but our errors, which can be shown."""
    for call in _CALLS:
        with contextlib.suppress(EnarxError):
            call.read(call.status, "application/json", data)
    with contextlib.suppress(EnarxError):
        platform = agent_calls.get_platform("snp")
        read_platform(platform.read(200, "application/json", data), "snp")
    error = agent_calls.refusal(404, MEDIA_TYPE, data)
    assert (str(error) + error.hint).isprintable()
