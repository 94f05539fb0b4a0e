"""The other end of the messages: what the kernel of an SNP guest does to get reports and keys (Linux, sev-guest)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from enarx.attest.snp._report import REPORT_BYTES
from enarx_emulator.amd.messages import RESPONSE_HEAD_BYTES, GuestMessage, KeySelect, MessageType
from enarx_emulator.amd.report import pack_certificate_table
from enarx_emulator.amd.report_faults import on_the_way
from enarx_emulator.amd.snp import SnpFirmware
from enarx_emulator.amd.status import SevStatus, refuse

REPORT_DATA_BYTES: Final = 64
_GUIDS: Final = {
    "VCEK": UUID("63da758d-e664-4564-adc5-f4b93be8accd").bytes_le,
    "VLEK": UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1").bytes_le,
    "ASK": UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782").bytes_le,
    "ARK": UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae").bytes_le,
}


def certificate_table(vek: bytes, intermediate: bytes, root: bytes, *, kind: str) -> bytes:
    """What a host gives with an extended report; ``kind``: ``VCEK`` or ``VLEK``. An empty ``vek`` is left out."""
    entries = {_GUIDS["ASK"]: intermediate, _GUIDS["ARK"]: root}
    return pack_certificate_table({_GUIDS[kind]: vek, **entries} if vek else entries)


@dataclass(slots=True, kw_only=True)
class GuestDriver:
    """A guest's side at one privilege level. It knows its key from the secrets page, and counts its messages."""

    firmware: SnpFirmware
    handle: int
    key: bytes = field(repr=False)
    vmpl: int = 0
    sequence: int = 0

    def report(
        self, report_data: bytes, *, vmpl: int | None = None, select: KeySelect = KeySelect.VLEK_OR_VCEK
    ) -> bytes:
        """Get a report over 64 bytes. Raises ``FirmwareError`` with the status in the response."""
        asked = report_data + self._level(vmpl) + int(select).to_bytes(4, "little") + bytes(24)
        payload = self._request(MessageType.REPORT_REQ, 1, asked)
        size = int.from_bytes(payload[4:8], "little")
        report = payload[RESPONSE_HEAD_BYTES : RESPONSE_HEAD_BYTES + size]
        assert len(report) == REPORT_BYTES  # noqa: S101 -- the firmware is ours
        return on_the_way(report, self.firmware.faults)

    def derived_key(
        self,
        *,
        fields: int = 0,
        root_key_select: int = 0,
        vmpl: int | None = None,
        guest_svn: int = 0,
        tcb_version: bytes = bytes(8),
        launch_mit_vector: int | None = None,
    ) -> bytes:
        """Get a key of 32 bytes that the same guest gets again. Raises ``FirmwareError``."""
        asked = root_key_select.to_bytes(4, "little") + bytes(4) + fields.to_bytes(8, "little")
        asked += self._level(vmpl) + guest_svn.to_bytes(4, "little") + tcb_version
        version = 1
        if launch_mit_vector is not None:
            asked, version = asked + launch_mit_vector.to_bytes(8, "little") + bytes(8), 2
        return self._request(MessageType.KEY_REQ, version, asked)[RESPONSE_HEAD_BYTES:]

    def _level(self, vmpl: int | None) -> bytes:
        return (self.vmpl if vmpl is None else vmpl).to_bytes(4, "little")

    def _request(self, kind: MessageType, version: int, payload: bytes) -> bytes:
        """Send one request, and read the response to this very one."""
        message = GuestMessage(
            sequence=self.sequence + 1, type=kind, version=version, vmpck=self.vmpl, payload=payload
        )
        sealed = self.firmware.guest_request(self.handle, message.seal(self.key))
        keys = (*(bytes(32),) * self.vmpl, self.key)
        response = GuestMessage.open(sealed, keys)
        if (response.sequence, response.type) != (self.sequence + 2, kind + 1):
            raise refuse(SevStatus.BAD_MEASUREMENT, "the response is one to another message")
        self.sequence += 2
        status = SevStatus(int.from_bytes(response.payload[:4], "little"))
        if status is not SevStatus.SUCCESS:
            raise refuse(status, f"{kind.name} was refused")
        return response.payload
