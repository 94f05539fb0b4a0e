"""The Enarx.toml that ``enarx config init`` writes. Without ``# `` its commented entries are valid."""

from __future__ import annotations

from typing import Final

TEMPLATE: Final = """\
## What a workload gets. Lines that start with two marks explain; remove "# " from an entry to use it.
## `enarx config check` shows what this file means.

## Arguments that follow the program's name, which is always main.wasm.
# args = ["--greeting", "hello"]

## The service that gives this keep a certificate in return for its evidence. Without one the keep signs
## its own.
# steward = "https://steward.example.org"

## Environment variables; FD_COUNT and FD_NAMES describe the descriptors below and are always there.
# [env]
# LOG_LEVEL = "info"

## Descriptors that are open when the workload starts, numbered from 0 in the order of this file.
## Kinds: null, stdin, stdout, stderr, listen, connect. Any of them can have a name, without colons.
[[files]]
kind = "stdin"

[[files]]
kind = "stdout"

[[files]]
kind = "stderr"

## A listening socket. prot is "tls" (the keep ends TLS, the workload sees plain bytes) or "tcp".
## addr is "::" and port 443 for tls, 80 for tcp, unless given.
# [[files]]
# kind = "listen"
# prot = "tls"
# name = "web"
# addr = "::"
# port = 8443

## A connection that is made before the workload starts. Its name is the host unless given.
# [[files]]
# kind = "connect"
# prot = "tls"
# host = "db.example.org"
# port = 5432
# name = "database"
"""
