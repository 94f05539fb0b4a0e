"""A conversation with something that is no keep."""

from __future__ import annotations

from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enarx.attest import Collateral
from enarx.tcb.errors import ProtocolViolation
from enarx.tcb.session import AuditLog, Life, Move, Progress, TenantSession
from enarx.tcb.session._messages import VOCABULARY
from enarx.tcb.wire import frame
from enarx.tenant.conversation import MAX_TOLD, Conversation
from enarx.tenant.judge import Judge
from enarx.tenant.steps import Step


class Chatterbox:
    """A channel on which something arrives whenever anybody looks."""

    buffered = True

    def send_now(self, data: bytes | memoryview) -> int:
        return len(data)

    def receive_now(self) -> bytes:
        return frame(VOCABULARY.encode(Progress(text="any moment now")))


def test_slow_drip_a_host_that_only_talks_is_not_listened_to_for_ever() -> None:
    """The time-out counts silence; who is never silent must meet another limit, before his words fill the record."""
    told: list[Step] = []
    life = Life(AuditLog())
    life.move(Move.BOOT)
    session = TenantSession(
        life, key=Ed25519PrivateKey.generate(), nonce=bytes(32), exporter=bytes(32), keep_key=bytes(32)
    )
    judge = Judge(
        trust=cast("Any", None),
        tee="snp",
        collateral=cast("Any", Collateral.none()),
        clock=cast("Any", None),
        tell=told.append,
    )
    with pytest.raises(ProtocolViolation, match="gives no evidence"):
        Conversation(cast("Any", Chatterbox()), session, judge).challenge()
    assert len(told) == MAX_TOLD
