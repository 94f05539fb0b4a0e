"""Enarx.toml: the reader is total, and the digest is a function of the meaning alone."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from enarx.tcb.wire import decode
from enarx.tcb.workload import (
    Config,
    Connect,
    File,
    Listen,
    Null,
    Protocol,
    Stderr,
    Stdin,
    Stdout,
    parse_config,
)
from enarx.tcb.workload._config import MAX_BYTES, file_value
from enarx.tcb.workload._toml import InvalidConfig

WORDS = (
    "files",
    "kind",
    "listen",
    "connect",
    "stdin",
    "prot",
    "tls",
    "name",
    "env",
    "args",
    "steward",
    "port",
)
TOKENS = st.sampled_from(
    [*WORDS, "[[", "]]", "[", "]", "{", "}", "=", ".", ",", '"', "'", '"""', "\n", "#", "1", " "]
)
CHARS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
NAMES = st.text(
    st.characters(categories=["L", "N", "P", "S"], exclude_characters=":"), min_size=1, max_size=20
)
PROTOCOLS = st.sampled_from(Protocol)
PORTS = st.integers(0, 0xFFFF)
FILES: st.SearchStrategy[File] = st.one_of(
    st.builds(Null, name=NAMES),
    st.builds(Stdin, name=NAMES),
    st.builds(Stdout, name=NAMES),
    st.builds(Stderr, name=NAMES),
    st.builds(Listen, protocol=PROTOCOLS, name=NAMES, address=NAMES, port=PORTS),
    st.builds(Connect, protocol=PROTOCOLS, host=NAMES, name=NAMES, port=PORTS),
)
ENV = st.dictionaries(st.text(CHARS.filter(lambda char: char != "="), min_size=1), st.text(CHARS), max_size=5)
CONFIGS = st.builds(
    Config,
    args=st.lists(st.text(CHARS), max_size=5).map(tuple),
    env=ENV,
    steward=st.none() | st.sampled_from(["https://steward.example.org", "https://[::1]:3000/a?b"]),
    files=st.lists(FILES, max_size=5).map(tuple),
)


def quoted(text: str) -> str:
    return (
        '"'
        + "".join(char if char.isascii() and char.isalnum() else f"\\U{ord(char):08x}" for char in text)
        + '"'
    )


def inline(table: Mapping[str, object], *, backwards: bool) -> str:
    keys = sorted(table, reverse=backwards)
    values = (str(it) if isinstance(it, int) else quoted(str(it)) for it in (table[key] for key in keys))
    return "{" + ", ".join(f"{quoted(key)} = {value}" for key, value in zip(keys, values, strict=True)) + "}"


def written(config: Config, *, backwards: bool) -> str:
    """Write ``config`` with every default spelled out, keys in one order or the other."""
    lines = [
        f"args = [{', '.join(map(quoted, config.args))}]",
        f"env = {inline(config.env, backwards=backwards)}",
        f"files = [{', '.join(inline(file_value(file), backwards=backwards) for file in config.files)}]",
        *([f"steward = {quoted(config.steward)}"] if config.steward is not None else []),
    ]
    return "\n".join(reversed(lines) if backwards else lines)


@given(st.text() | st.lists(TOKENS, max_size=60).map("".join) | st.binary())
def test_any_text_is_a_configuration_or_a_refusal(text: str | bytes) -> None:
    with contextlib.suppress(InvalidConfig):
        config = parse_config(text)
        assert decode(config.canonical(), max_bytes=2 * MAX_BYTES)


@given(CONFIGS, st.booleans())
def test_what_is_written_is_read(config: Config, backwards: bool) -> None:
    read = parse_config(written(config, backwards=backwards))
    assert read == config
    assert read.digest() == config.digest()


@given(CONFIGS, CONFIGS)
def test_digests_are_equal_when_meanings_are(one: Config, other: Config) -> None:
    assert (one.digest() == other.digest()) == (one == other)


@given(CONFIGS)
def test_names_can_be_taken_apart_again(config: Config) -> None:
    assert config.fd_names.split(":") == ([file.name for file in config.files] or [""])
