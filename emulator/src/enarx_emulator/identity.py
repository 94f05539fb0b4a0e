"""Which machine a state directory holds: written once, the same machine ever after."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Value, decode, encode
from enarx_emulator.errors import EmulatorError
from enarx_emulator.faults import check_faults
from enarx_emulator.kinds import KINDS
from enarx_emulator.machine import Machine, Setup, Store
from enarx_emulator.seed import Seed, random_seed

MODULES: Final = {
    "sev": "enarx_emulator.amd.machine",
    "sev-es": "enarx_emulator.amd.machine",
    "snp": "enarx_emulator.amd.machine",
    "sgx": "enarx_emulator.intel.machine",
    "tdx": "enarx_emulator.intel.machine",
    "pef": "enarx_emulator.ibm.machine",
}
"""Where ``make(Setup) -> Machine`` of each kind is; loaded when such a machine starts."""
PLATFORM: Final = "platform"
MACHINE: Final = "machine"
VERSION: Final = 1
MAX_BYTES: Final = 1 << 24


class Identity:
    """One machine in a store, and its firmware."""

    def __init__(
        self,
        store: Store,
        *,
        vendor: Store,
        kind: str,
        product: str | None = None,
        seed: bytes | None = None,
        faults: frozenset[str] = frozenset(),
    ) -> None:
        """Make the machine, or find it again. Raises ``EmulatorError`` when the store holds another one."""
        if kind not in KINDS:
            raise EmulatorError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
        if faults:
            check_faults(faults, kind)
        self._store = store
        record = self._record(kind, product, seed)
        root, known_product = record["seed"], record["product"]
        if not isinstance(root, bytes) or not isinstance(known_product, str | None):
            raise Malformed("platform: seed or product has the wrong type")
        self._saved = store.get(MACHINE)
        setup = Setup(
            kind=kind,
            product=known_product,
            seed=Seed(root),
            vendor=vendor,
            saved=None if self._saved is None else _mapping(self._saved, MACHINE),
            faults=faults,
        )
        self.machine: Machine = import_module(MODULES[kind]).make(setup)
        self.keep()

    def keep(self) -> None:
        """Write down what the machine must have again, if it changed: before anybody is told of the change."""
        saved = encode(dict(self.machine.save()))
        if saved != self._saved:
            self._store.put(MACHINE, saved)
            self._saved = saved

    def _record(self, kind: str, product: str | None, seed: bytes | None) -> dict[str, Value]:
        found = self._store.get(PLATFORM)
        if found is None:
            root = random_seed().root if seed is None else seed
            record: dict[str, Value] = {"version": VERSION, "kind": kind, "product": product, "seed": root}
            Seed(root)
            self._store.put(PLATFORM, encode(record))
            return record
        record = _mapping(found, PLATFORM)
        if record.get("version") != VERSION:
            raise Malformed(f"platform: version is {record.get('version')!r}, expected {VERSION}")
        wanted = {
            "kind": kind,
            "product": product or record.get("product"),
            "seed": seed or record.get("seed"),
        }
        for name, value in wanted.items():
            if record.get(name) != value:
                hint = "use another directory for another machine"
                raise EmulatorError(f"the state is that of a machine of another {name}", hint=hint)
        return record


def _mapping(data: bytes, name: str) -> dict[str, Value]:
    value = decode(data, max_bytes=MAX_BYTES)
    if not isinstance(value, dict):
        raise Malformed(f"{name}: expected a map")
    return value
