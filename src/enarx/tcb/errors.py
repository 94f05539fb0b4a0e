"""The root of every error that we raise on purpose."""

from __future__ import annotations


class EnarxError(Exception):
    """Something went wrong in a way that we foresaw.

    The message is one lower-case clause without a full stop that names the field, what was expected and what was
    found; it never holds a secret. ``hint`` is advice for the person who reads it, or empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Malformed(EnarxError):
    """The bytes or the text are not in the form they claim: their sender is broken or hostile."""


class ProtocolViolation(EnarxError):
    """The peer sent what the state does not allow; the connection is over."""


class Unavailable(EnarxError):
    """Something that is needed is not there or not permitted: a file, a device, a feature of this machine."""
