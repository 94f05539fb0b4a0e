"""What was already computed about collateral: an object that the caller owns and passes, bounded and
thread-safe.

It remembers *time-independent* facts only: "these bytes parse to this certificate", "this key made this
signature". Dates, revocation and policy are judged at every verification. Only successes are remembered; a
fact that raises is computed again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, TypeVar, cast

T = TypeVar("T")

MAX_ENTRIES: Final = 1024
"""One platform needs about ten entries; a cloud region a few hundred."""


_ABSENT: Final = object()


class Cache:
    """Remember the results of pure functions of bytes, the least recently used going first.

    Values must be immutable. Two threads may compute the same fact at once; both get the same answer.
    """

    __slots__ = ("_entries", "_lock", "_max_entries")

    def __init__(self, *, max_entries: int = MAX_ENTRIES) -> None:
        self._entries: OrderedDict[Hashable, object] = OrderedDict()
        self._lock = threading.Lock()
        self._max_entries = max_entries

    def remember(self, compute: Callable[..., T], *arguments: Hashable, **means: object) -> T:
        """Give ``compute(*arguments, **means)``, from memory if it was computed before of the same
        ``arguments``. Raises what ``compute`` raises.

        ``means`` are how it is computed, not of what, and must not change the result.
        """
        key = (compute, arguments)
        with self._lock:
            found = self._entries.get(key, _ABSENT)
            if found is not _ABSENT:
                self._entries.move_to_end(key)
                return cast("T", found)
        value = compute(*arguments, **means)
        with self._lock:
            self._entries[key] = value
            if len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)
        return value

    def __len__(self) -> int:
        return len(self._entries)
