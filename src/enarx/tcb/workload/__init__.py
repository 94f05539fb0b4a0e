"""What a tenant hands over: configuration, module, files, limits; and what became of it. Pure."""

from enarx.tcb.workload._config import (
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
from enarx.tcb.workload._digests import (
    configuration_digest,
    effective_config,
    running_config,
    workload_digest,
)
from enarx.tcb.workload._job import MAX_CONFIG_BYTES, SEAL_KEY_BYTES, Directory, Job, read_tree
from enarx.tcb.workload._limits import LIMITS, InvalidLimit, Limits, parse_limit
from enarx.tcb.workload._outcome import Ending, Outcome
from enarx.tcb.workload._secrets import Secret, check_secrets
from enarx.tcb.workload._toml import InvalidConfig
from enarx.tcb.workload._tree import Entry, EntryKind, Tree

__all__ = [
    "LIMITS",
    "MAX_CONFIG_BYTES",
    "SEAL_KEY_BYTES",
    "Config",
    "Connect",
    "Directory",
    "Ending",
    "Entry",
    "EntryKind",
    "File",
    "InvalidConfig",
    "InvalidLimit",
    "Job",
    "Limits",
    "Listen",
    "Null",
    "Outcome",
    "Protocol",
    "Secret",
    "Stderr",
    "Stdin",
    "Stdout",
    "Tree",
    "check_secrets",
    "configuration_digest",
    "effective_config",
    "parse_config",
    "parse_limit",
    "read_tree",
    "running_config",
    "workload_digest",
]
