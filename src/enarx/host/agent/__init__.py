"""The host agent: it launches keeps for whoever may ask, connects their tenants, and can read nothing that passes."""

from enarx.host.agent._server import Agent, Settings
from enarx.host.agent._tenants import Account, Accounts, parse_accounts

__all__ = ["Account", "Accounts", "Agent", "Settings", "parse_accounts"]
