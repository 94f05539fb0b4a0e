"""The customer's side: decides what to trust, knows what a keep image holds, holds the secrets.

    from enarx.tenant import SecretSource, deploy
    result = deploy("my-package", "http://host:7478", secrets=[SecretSource.from_file("key", Path("key.pem"))])

Nothing here trusts the machine, the network or evidence that has not been verified.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enarx.tenant.agent_calls import HostAddress
    from enarx.tenant.agent_client import AgentClient, AsyncAgentClient
    from enarx.tenant.audit import AuditFile
    from enarx.tenant.audit_replay import WITHHELD, kept_launches, replay
    from enarx.tenant.credentials import Credential, Credentials
    from enarx.tenant.deployment import Deployment, Result, deploy, start
    from enarx.tenant.endorsement import CollateralFrom
    from enarx.tenant.keep import Keep
    from enarx.tenant.package import Package, read_package
    from enarx.tenant.secret_source import SecretSource
    from enarx.tenant.steps import Step, What, Who
    from enarx.tenant.verification import Trust

_HOMES = {
    "WITHHELD": "audit_replay",
    "AgentClient": "agent_client",
    "AsyncAgentClient": "agent_client",
    "AuditFile": "audit",
    "CollateralFrom": "endorsement",
    "Credential": "credentials",
    "Credentials": "credentials",
    "Deployment": "deployment",
    "HostAddress": "agent_calls",
    "Keep": "keep",
    "Package": "package",
    "Result": "deployment",
    "SecretSource": "secret_source",
    "Step": "steps",
    "Trust": "verification",
    "What": "steps",
    "Who": "steps",
    "deploy": "deployment",
    "kept_launches": "audit_replay",
    "read_package": "package",
    "replay": "audit_replay",
    "start": "deployment",
}
"""Loaded when they are asked for: who only lists an image should not wait for a TLS client."""

__all__ = [
    "WITHHELD",
    "AgentClient",
    "AsyncAgentClient",
    "AuditFile",
    "CollateralFrom",
    "Credential",
    "Credentials",
    "Deployment",
    "HostAddress",
    "Keep",
    "Package",
    "Result",
    "SecretSource",
    "Step",
    "Trust",
    "What",
    "Who",
    "deploy",
    "kept_launches",
    "read_package",
    "replay",
    "start",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
