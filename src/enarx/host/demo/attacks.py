"""What the hosts of the demos can be told to do wrong. Each is refused, by the check that the manual names."""

from __future__ import annotations

from enum import Enum


class SevAttack(Enum):
    """What the host does wrong."""

    MEASUREMENT = "measurement"
    """It puts code of its own into the memory that is measured."""
    CHAIN = "chain"
    """It puts a key of its own into the platform's certificate, to read what the tenant sends to the platform."""
    POLICY = "policy"
    """It launches the guest with a policy that lets it read the guest's memory."""
    SECRET_REPLAY = "secret-replay"  # noqa: S105 (an attack)
    """It launches a second guest by the same session, and gives it the code that was sent for the first."""
    FIRMWARE_VERSION = "firmware-version"
    """It says that its firmware is newer than it is."""


class SgxAttack(Enum):
    """What the host does wrong."""

    MRENCLAVE = "mrenclave"
    """It starts another program than the tenant's."""
    SIGNATURE = "signature"
    """It changes the quote."""
    KEY_SWAP = "key-swap"
    """It gives a key of its own for that of the enclave, to read what the tenant sends to the enclave."""
    REPLAY = "replay"
    """It shows a quote that was made for an earlier challenge."""
    DEBUG = "debug"
    """It starts the enclave so that its memory can be read."""
