"""EMULATED processors of Intel's: what is burnt into one, which security versions it runs, and the keys that follow.

Fuses hold two secrets. The root provisioning key is known to the vendor too, who thereby knows the keys that platforms
attest with; the seal fuses are known to the chip alone. Source: Intel SDM volume 3D, EGETKEY, "Key derivation".
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from enarx.tcb.wire import Value
from enarx_emulator.errors import EmulatorError
from enarx_emulator.seed import Seed

SVNS: Final = 16
"""How many security versions CPUSVN and TEE_TCB_SVN have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What all platforms of one kind have in common."""

    name: str
    fmspc: bytes
    """Family, model, stepping, platform type and SKU (6 bytes). Those here begin with E0, as no real one does."""
    multi_package: bool
    """Certified by the Platform CA, after registration; otherwise by the Processor CA."""
    sgx_type: int
    """0 standard, 1 scalable, 2 scalable with integrity."""
    cpu_svn: bytes
    pce_svn: int
    tee_tcb_svn: bytes | None
    """Version and major version of the TDX module, SEAM loader, and so on; nothing without TDX."""


MODELS: Final[Mapping[str, Model]] = {
    model.name: model
    for model in (
        Model(
            name="coffeelake",
            fmspc=bytes.fromhex("e0906ed50000"),
            multi_package=False,
            sgx_type=0,
            cpu_svn=bytes.fromhex("14140204018000000000000000000000"),
            pce_svn=13,
            tee_tcb_svn=None,
        ),
        Model(
            name="icelake",
            fmspc=bytes.fromhex("e0606a000000"),
            multi_package=True,
            sgx_type=1,
            cpu_svn=bytes.fromhex("0e0e0303ff0100000000000000000000"),
            pce_svn=13,
            tee_tcb_svn=None,
        ),
        Model(
            name="sapphirerapids",
            fmspc=bytes.fromhex("e0806f050000"),
            multi_package=True,
            sgx_type=1,
            cpu_svn=bytes.fromhex("08080202030100050000000000000000"),
            pce_svn=13,
            tee_tcb_svn=bytes.fromhex("05000600000000000000000000000000"),
        ),
        Model(
            name="emeraldrapids",
            fmspc=bytes.fromhex("e0c06f000000"),
            multi_package=True,
            sgx_type=1,
            cpu_svn=bytes.fromhex("03030202030100050000000000000000"),
            pce_svn=13,
            tee_tcb_svn=bytes.fromhex("06010300000000000000000000000000"),
        ),
    )
}
"""What can be emulated. The TDX module of sapphirerapids is of major version 0, that of emeraldrapids of 1."""

PCE_ID: Final = bytes(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDependencies:
    """What a key is made from besides the fuses, in the order of the SDM; the layout is ours, Intel's is not public.

    PADDING is left out, which is a constant.
    """

    key_name: int
    isv_family_id: bytes = bytes(16)
    isv_ext_prod_id: bytes = bytes(16)
    isv_prod_id: int = 0
    isv_svn: int = 0
    owner_epoch: bytes = bytes(16)
    attributes: bytes = bytes(16)
    attributes_mask: bytes = bytes(16)
    mrenclave: bytes = bytes(32)
    mrsigner: bytes = bytes(32)
    key_id: bytes = bytes(32)
    seal_fuses: bytes = bytes(16)
    cpu_svn: bytes = bytes(SVNS)
    misc_select: int = 0
    misc_mask: int = 0
    key_policy: int = 0
    config_id: bytes = bytes(64)
    config_svn: int = 0

    def pack(self) -> bytes:
        """Give all of it, numbers as 4 bytes little endian."""
        values = (getattr(self, field.name) for field in fields(self))
        return b"".join(one.to_bytes(4, "little") if isinstance(one, int) else one for one in values)


def cmac(key: bytes, data: bytes) -> bytes:
    """AES-128-CMAC (16 bytes), as reports carry it."""
    mac = CMAC(AES(key))
    mac.update(data)
    return mac.finalize()


def pck_key(provisioning_key: bytes) -> ec.EllipticCurvePrivateKey:
    """Derive the key that certifies attestation keys. The PCE does it on the platform, the vendor for certificates."""
    return Seed(provisioning_key).ec_key("provisioning certification key", ec.SECP256R1())


def ppid_of(provisioning_key: bytes) -> bytes:
    """Derive the platform's name (16 bytes) from its provisioning key at security versions of zero."""
    return cmac(provisioning_key, bytes(16))


def derive_key(root_provisioning_key: bytes, dependencies: KeyDependencies) -> bytes:
    """Derive a key of the processor's hierarchy (16 bytes)."""
    return cmac(root_provisioning_key, dependencies.pack())


class Processor:
    """One emulated platform. What it is never changes, but its security versions do, with microcode and modules."""

    def __init__(
        self,
        fuses: Seed,
        model: Model,
        *,
        cpu_svn: bytes | None = None,
        pce_svn: int | None = None,
        tee_tcb_svn: bytes | None = None,
        owner_epoch: bytes = bytes(16),
        boots: int = 0,
    ) -> None:
        """``boots``: how often it was started before. Each start has new report keys."""
        self.model = model
        self.cpu_svn = model.cpu_svn if cpu_svn is None else cpu_svn
        self.pce_svn = model.pce_svn if pce_svn is None else pce_svn
        self.tee_tcb_svn = model.tee_tcb_svn if tee_tcb_svn is None else tee_tcb_svn
        self.owner_epoch = owner_epoch
        self.boots = boots
        self._fuses = fuses
        self.root_provisioning_key = fuses.derive("root provisioning key", 16)
        self.seal_fuses = fuses.derive("seal fuses", 16)
        self.report_key_id = fuses.derive(f"report key id {boots}", 32)
        self._report_mac_key = fuses.derive(f"seam report mac key {boots}", 32)
        self.platform_instance_id = fuses.derive("platform instance id", 16)
        if len(self.cpu_svn) != SVNS or len(owner_epoch) != 16:
            raise EmulatorError(
                f"cpusvn and owner epoch have {len(self.cpu_svn)} and {len(owner_epoch)} bytes"
            )

    def derive(self, dependencies: KeyDependencies) -> bytes:
        """Derive a key as EGETKEY and EREPORT do (16 bytes)."""
        return derive_key(self.root_provisioning_key, dependencies)

    def reaches(self, cpu_svn: bytes) -> bool:
        """Say whether the processor may derive keys of these security versions: none of them is above its own."""
        return all(asked <= have for asked, have in zip(cpu_svn, self.cpu_svn, strict=True))

    def seam_mac(self, data: bytes) -> bytes:
        """The MAC of SEAMREPORT (HMAC-SHA-256, 32 bytes), by which a quoting enclave knows reports of this platform."""
        return hmac.digest(self._report_mac_key, data, "sha256")

    def save(self) -> dict[str, Value]:
        """Give what makes it this platform."""
        return {
            "fuses": self._fuses.root,
            "model": self.model.name,
            "cpu_svn": self.cpu_svn,
            "pce_svn": self.pce_svn,
            "tee_tcb_svn": self.tee_tcb_svn,
            "owner_epoch": self.owner_epoch,
            "boots": self.boots,
        }

    @classmethod
    def restore(cls, saved: Mapping[str, Value]) -> Self:
        """Make the same platform after another start. Raises ``EmulatorError`` for anything but what ``save`` gave."""
        match saved:
            case {
                "fuses": bytes() as fuses,
                "model": str() as model,
                "cpu_svn": bytes() as cpu_svn,
                "pce_svn": int() as pce_svn,
                "tee_tcb_svn": bytes() | None as tee_tcb_svn,
                "owner_epoch": bytes() as owner_epoch,
                "boots": int() as boots,
            } if model in MODELS:
                return cls(
                    Seed(fuses),
                    MODELS[model],
                    cpu_svn=cpu_svn,
                    pce_svn=pce_svn,
                    tee_tcb_svn=tee_tcb_svn,
                    owner_epoch=owner_epoch,
                    boots=boots + 1,
                )
            case _:
                raise EmulatorError("the saved state is not that of an intel processor")
