"""Sealed numbers: for one key, one direction and one quote."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from enarx.tcb.errors import Malformed
from enarx.tenant.demo.sealing import OPERANDS, SUM, public_bytes, report_data, seal, unseal

BINDING = report_data(bytes(32), bytes(32))


def test_only_the_key_the_direction_and_the_quote_that_were_meant_open_it() -> None:
    key, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    sealed = seal([1, 2, b"k"], key=public_bytes(key), purpose=OPERANDS, binding=BINDING)
    assert unseal(sealed, key=key, purpose=OPERANDS, binding=BINDING) == [1, 2, b"k"]
    for opener, purpose, binding in (
        (other, OPERANDS, BINDING),
        (key, SUM, BINDING),
        (key, OPERANDS, report_data(b"\1" * 32, bytes(32))),
    ):
        with pytest.raises(Malformed, match="not made for this key"):
            unseal(sealed, key=opener, purpose=purpose, binding=binding)


def test_every_changed_byte_is_noticed() -> None:
    key = X25519PrivateKey.generate()
    sealed = seal(4, key=public_bytes(key), purpose=SUM, binding=BINDING)
    for at in range(len(sealed)):
        changed = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(Malformed):
            unseal(changed, key=key, purpose=SUM, binding=BINDING)
    for cut in (b"", sealed[:-1], sealed[:31], sealed + b"\0"):
        with pytest.raises(Malformed):
            unseal(cut, key=key, purpose=SUM, binding=BINDING)


def test_a_quote_is_bound_to_challenge_and_key() -> None:
    found = {report_data(nonce, key) for nonce in (bytes(32), b"\1" * 32) for key in (bytes(32), b"\1" * 32)}
    assert len(found) == 4
    assert {len(one) for one in found} == {64}
