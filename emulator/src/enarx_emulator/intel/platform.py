"""What SGX and TDX machines have in common: a processor, Intel's enclaves on it, and what Intel certifies of it."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Value
from enarx_emulator.arguments import Arguments
from enarx_emulator.errors import EmulatorError
from enarx_emulator.intel.pck import pem
from enarx_emulator.intel.processor import MODELS, Processor
from enarx_emulator.intel.quoting import Certification, Pce, Qe, TdQe
from enarx_emulator.intel.sgx import SgxCpu
from enarx_emulator.intel.vendor import IntelVendor, stored_rsa_key
from enarx_emulator.machine import Setup

USUAL: Final = {"sgx": "icelake", "tdx": "emeraldrapids"}
"""The model of each kind of machine, unless another is named."""
_STRANGER: Final = "stranger-enclave-signer"


class IntelPlatform:
    """One machine of Intel's. Its enclaves are started when they are first needed."""

    def __init__(self, setup: Setup) -> None:
        self.faults = setup.faults
        self._store = setup.vendor
        self.vendor = IntelVendor(setup.vendor, seed=setup.seed.child("intel vendor"), faults=setup.faults)
        self.processor = (
            _restored(setup)
            if setup.saved
            else Processor(setup.seed.child("intel processor"), MODELS[_model(setup)])
        )
        if setup.kind == "tdx" and self.processor.tee_tcb_svn is None:
            raise EmulatorError(
                f"product is {self.processor.model.name}, which has no TDX",
                hint=f"with TDX: {', '.join(name for name, one in MODELS.items() if one.tee_tcb_svn)}",
            )
        self.cpu = SgxCpu(self.processor)

    def restart(self, **changes: Value) -> None:
        """Start again with other microcode, PCE or owner epoch. No enclave or TD outlives it."""
        changed = {**self.processor.save(), **changes}
        self.processor = Processor.restore(changed)
        self.cpu = SgxCpu(self.processor)
        for name in ("pce", "certification", "qe", "td_qe"):
            self.__dict__.pop(name, None)

    @cached_property
    def pce(self) -> Pce:
        """The enclave with the platform's key. Intel knows the platform from now on."""
        pce = Pce(self.cpu, self.vendor.enclave_key)
        self.vendor.register(self.processor)
        return pce

    @cached_property
    def certification(self) -> Certification:
        """The certificates that go into quotes."""
        processor = self.processor
        chain = self.vendor.pck_chain(self.pce.ppid, cpu_svn=processor.cpu_svn, pce_svn=processor.pce_svn)
        return Certification.chain(chain)

    @cached_property
    def qe(self) -> Qe:
        """The quoting enclave for enclaves."""
        return Qe(self.cpu, self.pce, self._signer, self.certification, faults=self.faults)

    @cached_property
    def td_qe(self) -> TdQe:
        """The quoting enclave for TDs."""
        return TdQe(self.cpu, self.pce, self._signer, self.certification, faults=self.faults)

    def restart_by(self, arguments: Arguments) -> None:
        """Restart as the host asks; what it does not name stays as it is. Raises ``Malformed``."""
        processor = self.processor
        octets = {
            "cpu_svn": arguments.data("cpu_svn", processor.cpu_svn),
            "owner_epoch": arguments.data("owner_epoch", processor.owner_epoch),
        }
        pce_svn = arguments.number("pce_svn", processor.pce_svn, below=1 << 16)
        arguments.end()
        for name, value in octets.items():
            if len(value) != 16:
                raise Malformed(f"restart: {name} has {len(value)} bytes, expected 16")
        self.restart(pce_svn=pce_svn, **octets)

    def info(self, kind: str, firmware: str) -> dict[str, Value]:
        """Describe the machine."""
        processor = self.processor
        tcb: dict[str, Value] = {"cpu_svn": processor.cpu_svn, "pce_svn": processor.pce_svn}
        if processor.tee_tcb_svn is not None:
            tcb["tee_tcb_svn"] = processor.tee_tcb_svn
        return {
            "kind": kind,
            "product": processor.model.name,
            "emulated": True,
            "platform_id": self.pce.ppid,
            "fmspc": processor.model.fmspc,
            "roots": [pem(self.vendor.root.der)],
            "tcb": tcb,
            "firmware": firmware,
        }

    def collateral(self, tee: str) -> dict[str, Value]:
        """What the vendor publishes for this machine now, as a host that caches it would give it."""
        found = self.vendor.collateral(tee.upper(), self.processor.model, datetime.now(UTC))
        return {
            "certificates": list(found.certificates),
            "crls": list(found.crls),
            "documents": [[one.kind.value, one.data] for one in found.documents],
        }

    @property
    def _signer(self) -> rsa.RSAPrivateKey:
        if "intel-qe-other-signer" in self.faults:
            return stored_rsa_key(self._store, _STRANGER)
        return self.vendor.enclave_key


def _model(setup: Setup) -> str:
    name = setup.product or USUAL[setup.kind]
    if name not in MODELS:
        raise EmulatorError(f"product is {name!r}, expected one of {', '.join(MODELS)}")
    return name


def _restored(setup: Setup) -> Processor:
    saved = setup.saved or {}
    processor = Processor.restore(saved)
    if setup.product not in (None, processor.model.name):
        raise EmulatorError(
            f"product is {setup.product!r}, but this machine is of model {processor.model.name}"
        )
    return processor
