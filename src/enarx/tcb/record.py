"""Immutable values with named fields, for what a keep loads while somebody waits for it to start.

They are declared as frozen dataclasses with slots are, and behave alike. A dataclass writes and compiles the source of
its methods whenever its module is loaded, which takes half a millisecond each; here all classes share closures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast, dataclass_transform, overload

T = TypeVar("T")

_NOTHING: Final = object()


class _Field:
    """How a field gets its value when the caller gives none, and whether it is shown."""

    __slots__ = ("make", "shown")

    def __init__(self, make: Callable[[], object] | None, shown: bool) -> None:
        self.make = make
        self.shown = shown


def field(
    *,
    default: Any = _NOTHING,
    default_factory: Callable[[], Any] | None = None,
    repr: bool = True,  # noqa: A002 -- what type checkers know
) -> Any:
    """Say more of a field than its default: how a default is made, or that the value must not be shown."""
    return _Field(default_factory if default is _NOTHING else lambda: default, repr)


@overload
def record(cls: type[T], /) -> type[T]: ...
@overload
def record(*, kw_only: bool) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def record(cls: type[T] | None = None, /, *, kw_only: bool = True) -> Any:
    """Make the annotated names of a class its fields; ``__post_init__``, if there is one, checks them."""
    return _record(cls, kw_only) if cls is not None else lambda given: _record(given, kw_only)


def replace(value: T, **changes: object) -> T:
    """Give a record like ``value`` but for ``changes``, checked like any other."""
    return type(value)(**{**dict(_items(value)), **changes})


def names(cls: type) -> tuple[str, ...]:
    """Name the fields of a record's class in the order of their declaration."""
    return tuple(cls._fields)  # type: ignore[attr-defined] # record made it


def _record(cls: type[T], kw_only: bool) -> type[T]:
    inside = cls.__dict__
    own = [
        name
        for name, kind in inside.get("__annotations__", {}).items()
        if not str(kind).startswith("ClassVar")
    ]
    fields: dict[str, _Field] = {}
    for name in own:
        default = inside.get(name, _NOTHING)
        fields[name] = default if isinstance(default, _Field) else field(default=default)
    made = {
        **_METHODS,
        "__slots__": tuple(own),
        "__match_args__": () if kw_only else tuple(own),
        "__init__": _initialiser(fields, 0 if kw_only else len(own), inside.get("__post_init__")),
        "_fields": fields,
    }
    kept = {name: value for name, value in inside.items() if name not in (*own, "__dict__", "__weakref__")}
    new: Any = type(cls)
    return cast("type[T]", new(cls.__name__, cls.__bases__, {**made, **kept}))


def _initialiser(
    fields: Mapping[str, _Field], positions: int, check: Callable[[Any], None] | None
) -> Callable[..., None]:
    def initialise(self: Any, *values: object, **given: object) -> None:
        if len(values) > positions or given.keys() & set(list(fields)[: len(values)]):
            raise TypeError(f"{type(self).__name__} is given a field twice, or without its name")
        given |= zip(fields, values, strict=False)
        for name, about in fields.items():
            value = given.pop(name, _NOTHING)
            if value is _NOTHING:
                if about.make is None:
                    raise TypeError(f"{type(self).__name__} needs {name}")
                value = about.make()
            _set(self, name, value)
        if given:
            raise TypeError(f"{type(self).__name__} has no field {next(iter(given))}")
        if check is not None:
            check(self)

    return initialise


_set: Final = object.__setattr__


def _items(self: Any) -> list[tuple[str, object]]:
    return [(name, getattr(self, name)) for name in self._fields]


def _eq(self: Any, other: object) -> Any:
    return _items(self) == _items(other) if type(self) is type(other) else NotImplemented


def _hash(self: Any) -> int:
    return hash(tuple(_items(self)))


def _repr(self: Any) -> str:
    shown = ", ".join(f"{name}={value!r}" for name, value in _items(self) if self._fields[name].shown)
    return f"{type(self).__name__}({shown})"


def _refuse(self: Any, name: str, _: object = None) -> None:
    raise AttributeError(f"{type(self).__name__}.{name} cannot be changed")


def _parts(self: Any) -> tuple[Any, ...]:
    return _again, (type(self), dict(_items(self)))


def _again(cls: type[T], values: Mapping[str, object]) -> T:
    return cls(**values)


_METHODS: Final = {
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _refuse,
    "__delattr__": _refuse,
    "__reduce__": _parts,
}
