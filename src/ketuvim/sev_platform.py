"""The secure processor as a platform, through ``/dev/sev`` (linux/psp-sev.h): status, identity, certificates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from ketuvim import _numbers as n
from ketuvim import _structs as s
from ketuvim._ioctl import Descriptor, Pinned
from ketuvim.errors import KvmError
from ketuvim.sev_commands import DEVICE, open_device
from ketuvim.sev_status import SevRefused, SevStatus

PLATFORM_STATUS: Final = 1
PEK_CSR: Final = 3
PDH_GEN: Final = 4
PDH_CERT_EXPORT: Final = 5
GET_ID2: Final = 8
_CERTIFICATE_BYTES: Final = 2084
_CHAIN_BYTES: Final = 3 * _CERTIFICATE_BYTES
_ID_BYTES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformStatus:
    """PLATFORM_STATUS: version of API and firmware, state (0 down, 1 up, 2 with guests), owner, SEV-ES, guests."""

    api_major: int
    api_minor: int
    build: int
    state: int
    flags: int
    guest_count: int


class SevPlatform:
    """The opened device."""

    __slots__ = ("_device",)

    def __init__(self, device: Descriptor) -> None:
        self._device = device

    @classmethod
    def open(cls, path: str = DEVICE) -> Self:
        """Open it; raise ``KvmUnavailable`` where there is none."""
        return cls(open_device(path))

    def status(self) -> PlatformStatus:
        """Ask for the platform's status."""
        packed = bytearray(s.PSP_STATUS.size)
        self._issue(PLATFORM_STATUS, packed)
        major, minor, state, flags, build, guests = s.PSP_STATUS.unpack(packed)
        return PlatformStatus(
            api_major=major, api_minor=minor, build=build, state=state, flags=flags, guest_count=guests
        )

    def identity(self) -> bytes:
        """Give the chip's identity, under which the vendor publishes its certificate."""
        found = bytearray(_ID_BYTES)
        place = Pinned(found)
        packed = bytearray(s.PSP_GET_ID2.pack(place.address, place.size))
        self._issue(GET_ID2, packed)
        return bytes(found[: s.PSP_GET_ID2.unpack(packed)[1]])

    def export_pdh(self) -> tuple[bytes, bytes]:
        """Give the PDH certificate (2084 bytes), and PEK, OCA and CEK in a row (6252 bytes)."""
        pdh, chain = bytearray(_CERTIFICATE_BYTES), bytearray(_CHAIN_BYTES)
        one, two = Pinned(pdh), Pinned(chain)
        packed = s.PSP_PDH_CERT_EXPORT.pack(one.address, one.size, two.address, two.size)
        self._issue(PDH_CERT_EXPORT, bytearray(packed))
        return bytes(pdh), bytes(chain)

    def pek_csr(self) -> bytes:
        """Give the PEK's certificate without signatures, for an owner to sign."""
        found = bytearray(_CERTIFICATE_BYTES)
        place = Pinned(found)
        self._issue(PEK_CSR, bytearray(s.PSP_PEK_CSR.pack(place.address, place.size)))
        return bytes(found)

    def renew_pdh(self) -> None:
        """Make a new Diffie-Hellman key."""
        self._issue(PDH_GEN)

    def close(self) -> None:
        """Close the device."""
        self._device.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _issue(self, command: int, argument: bytearray | None = None) -> None:
        place = None if argument is None else Pinned(argument)
        packed = bytearray(s.PSP_CMD.pack(command, 0 if place is None else place.address, 0))
        try:
            self._device.ioctl(n.SEV_ISSUE_CMD, packed)
        except KvmError as error:
            status = s.PSP_CMD.unpack(packed)[2]
            if status:
                raise SevRefused(f"SEV platform command {command}", SevStatus.of(status)) from error
            raise
