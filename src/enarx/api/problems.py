"""The error document of every HTTP service (RFC 9457)."""

from __future__ import annotations

from typing import Final

import msgspec

MEDIA_TYPE: Final = "application/problem+json"


class Problem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a request failed. ``title`` is the kind of problem, ``detail`` this one, ``hint`` what to do."""

    title: str
    status: int
    detail: str = ""
    hint: str = ""
    type: str = "about:blank"
