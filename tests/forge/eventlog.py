"""Event logs in the crypto-agile form, made of events and right unless a test spoils them."""

from enarx_emulator.eventlog import NO_ACTION, Entry, cc_log, event_log, spec_id, u

__all__ = ["NO_ACTION", "Entry", "cc_log", "event_log", "spec_id", "u"]
