"""The two names of what runs: digests of the workload and of its configuration (docs/spec/session.md, 3)."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from enarx.tcb.wire import Value, encode
from enarx.tcb.workload._config import Config, parse_config
from enarx.tcb.workload._job import Job
from enarx.tcb.workload._tree import EntryKind, Tree

WORKLOAD_LABEL: Final = "enarx-workload/1"
CONFIGURATION_LABEL: Final = "enarx-configuration/1"


def effective_config(job: Job) -> Config:
    """Give the configuration with what the launch adds to it. Raises ``Malformed``."""
    config = Config() if job.config is None else parse_config(job.config)
    return config.overridden(args=job.arguments, env=dict(job.environment))


def running_config(job: Job) -> Config:
    """Give the configuration as the workload meets it: with the secrets that are variables."""
    return effective_config(job).overridden(
        env={it.name: it.value.decode() for it in job.secrets if it.environment}
    )


def workload_digest(job: Job) -> bytes:
    """Name the module and every file that comes with it: 32 bytes. Times of files are no part of what they are."""
    directories: list[Value] = [
        [it.name, it.writable, it.returned, _tree(it.tree)]
        for it in sorted(job.directories, key=lambda it: it.name)
    ]
    return sha256(encode([WORKLOAD_LABEL, sha256(job.module).digest(), directories])).digest()


def configuration_digest(job: Job) -> bytes:
    """Name how it runs: 32 bytes. Of secrets it tells the names, never the values. Raises ``Malformed``."""
    secrets: list[Value] = [
        [it.name, it.environment] for it in sorted(job.secrets, key=lambda secret: secret.name)
    ]
    config = effective_config(job).digest()
    roots = sha256(job.roots).digest()
    return sha256(
        encode([CONFIGURATION_LABEL, config, job.limits.value(), job.threads, roots, secrets])
    ).digest()


def _tree(tree: Tree) -> list[Value]:
    return [
        [it.path, it.kind.value, it.data if it.kind is EntryKind.SYMLINK else sha256(it.data).digest()]
        for it in sorted(tree.entries, key=lambda entry: entry.path)
    ]
