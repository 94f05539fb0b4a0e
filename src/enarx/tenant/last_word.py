"""What a host says of a keep whose connection broke. Nobody vouches for it; it tells its owner where to look."""

from __future__ import annotations

import time
from typing import Final

from enarx.tcb.errors import EnarxError
from enarx.tenant.agent_calls import HostAddress, printable
from enarx.tenant.agent_client import AgentClient
from enarx.tenant.channel import ChannelLost

WAIT_S: Final = 3.0
"""How long a host may take to notice: a machine's last word comes after its connections have ended."""
PAUSE_S: Final = 0.05


def add_last_word(lost: ChannelLost, host: HostAddress, keep: str) -> None:
    """Have the hint of ``lost`` say why the host thinks that the keep ended, if it does."""
    deadline = time.monotonic() + WAIT_S
    try:
        with AgentClient(host, timeout_s=WAIT_S) as agent:
            while not (ended := agent.keep(keep).ended) and time.monotonic() < deadline:
                time.sleep(PAUSE_S)
    except EnarxError:
        return  # it is gone, too
    if ended:
        lost.hint = f"its host says: {printable(ended)}"
