"""How the SNP firmware answers guests: reports and derived keys (AMD 56860, SNP_GUEST_REQUEST)."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec

from enarx.attest.snp._report import ECDSA_P384_SHA384, Tcb
from enarx.tcb.errors import Malformed
from enarx.tcb.wire import Layout
from enarx_emulator.amd.messages import (
    KEY_BYTES,
    KEY_REQUEST,
    KEY_REQUEST_2,
    MAX_SEQUENCE,
    REPORT_REQUEST,
    RESPONSE_HEAD_BYTES,
    GuestMessage,
    KeySelect,
    MessageType,
)
from enarx_emulator.amd.report import pack_report
from enarx_emulator.amd.report_faults import before_signing
from enarx_emulator.amd.status import SevStatus, require
from enarx_emulator.amd.vendor import vlek_key
from enarx_emulator.errors import FirmwareError

if TYPE_CHECKING:
    from enarx_emulator.amd.snp import SnpFirmware, SnpGuest

_NEWEST: Final = {MessageType.KEY_REQ: 2, MessageType.REPORT_REQ: 1}
_SIGNING_VCEK, _SIGNING_VLEK, _SIGNING_NONE = 0, 1, 7
_VMRK: Final = 1
_POLICY, _IMAGE_ID, _FAMILY_ID, _MEASUREMENT, _GUEST_SVN, _TCB_VERSION, _MITIGATIONS = (
    1 << bit for bit in range(7)
)
"""Bits of GUEST_FIELD_SELECT."""
_KEY_LABEL: Final = b"EMULATED SNP derived key"


def answer(firmware: SnpFirmware, guest: SnpGuest, data: bytes) -> bytes:
    """Open a guest's message and seal the response to it; a message counts only when it was answered.

    Raises ``FirmwareError`` to the host; what is wrong with the request itself is told to the guest.
    """
    message = GuestMessage.open(data, guest.vmpcks)
    count = guest.counts[message.vmpck]
    require(
        count < MAX_SEQUENCE - 1 and message.sequence == count + 1,
        SevStatus.AEAD_OFLOW,
        f"message has number {message.sequence}, expected {count + 1}",
    )
    newest = {int(known): most for known, most in _NEWEST.items()}.get(message.type, 0)
    require(
        0 < message.version <= newest,
        SevStatus.INVALID_PARAM,
        f"message is of type {message.type} and version {message.version}",
    )
    if message.type == MessageType.REPORT_REQ:
        layout, act, size = REPORT_REQUEST, _report, RESPONSE_HEAD_BYTES
    else:
        layout, act, size = (
            (KEY_REQUEST, KEY_REQUEST_2)[message.version - 1],
            _key,
            RESPONSE_HEAD_BYTES + KEY_BYTES,
        )
    large = len(message.payload) >= layout.size
    require(large, SevStatus.INVALID_PARAM, f"{layout.name} has {len(message.payload)} bytes")
    try:
        payload = act(firmware, guest, message, _split(layout, message.payload))
    except FirmwareError as refused:
        payload = int(refused.status).to_bytes(4, "little").ljust(size, b"\0")
    guest.counts[message.vmpck] += 2
    response = GuestMessage(
        sequence=message.sequence + 1,
        type=message.type + 1,
        version=message.version,
        vmpck=message.vmpck,
        payload=payload.ljust(-(-len(payload) // 16) * 16, b"\0"),
    )
    return response.seal(guest.vmpcks[message.vmpck])


def _split(layout: Layout, payload: bytes) -> dict[str, bytes]:
    try:
        return layout.split(payload[: layout.size])
    except Malformed:
        return {}


def _report(firmware: SnpFirmware, guest: SnpGuest, message: GuestMessage, asked: dict[str, bytes]) -> bytes:
    """MSG_REPORT_REQ."""
    require(bool(asked), SevStatus.INVALID_PARAM, "reserved bytes are not zero")
    signing, key = _endorsement(firmware, guest, _number(asked["key_sel"]))
    vmpl = _check_vmpl(_number(asked["vmpl"]), message)
    chip, block = firmware.chip, guest.id_block
    current, committed = chip.current, chip.committed
    report_data = asked["report_data"]
    if "snp-replayed-report" in firmware.faults:
        guest.first_report_data = report_data = guest.first_report_data or report_data
    fields: dict[str, int | bytes] = {
        "version": firmware.report_version,
        "guest_svn": block.guest_svn if block else 0,
        "policy": guest.policy.value,
        "family_id": block.family_id if block else bytes(16),
        "image_id": block.image_id if block else bytes(16),
        "vmpl": vmpl,
        "signature_algo": ECDSA_P384_SHA384,
        "current_tcb": chip.pack(current.tcb),
        "platform_info": firmware.platform_info,
        "key_info": int(guest.author_key_en) | firmware.mask_chip_key << 1 | signing << 2,
        "report_data": report_data,
        "measurement": guest.measurement,
        "host_data": guest.host_data,
        "id_key_digest": guest.id_key_digest,
        "author_key_digest": guest.author_key_digest,
        "report_id": guest.report_id,
        "report_id_ma": guest.report_id_ma,
        "reported_tcb": chip.pack(chip.reported),
        "chip_id": bytes(64) if firmware.mask_chip_id else chip.fuses.chip_id,
        "committed_tcb": chip.pack(committed.tcb),
        "current_version": bytes(reversed(current.version)),
        "committed_version": bytes(reversed(committed.version)),
        "launch_tcb": chip.pack(guest.launch_tcb),
    }
    if firmware.report_version >= 3:
        fields["cpuid"] = bytes(chip.product.cpuid)
    if firmware.report_version >= 5:
        fields["launch_mit_vector"] = guest.launch_mitigations
        fields["current_mit_vector"] = chip.product.mitigations
    report = pack_report(before_signing(fields, firmware.faults), key)
    return bytes(4) + len(report).to_bytes(4, "little") + bytes(24) + report


def _endorsement(
    firmware: SnpFirmware, guest: SnpGuest, select: int
) -> tuple[int, ec.EllipticCurvePrivateKey | None]:
    """SIGNING_KEY, and the key that it names."""
    _check_selection(firmware, guest, select)
    if select != KeySelect.VCEK and firmware.vlek is not None:
        return _SIGNING_VLEK, vlek_key(firmware.vlek)
    if firmware.mask_chip_key:
        return _SIGNING_NONE, None
    return _SIGNING_VCEK, firmware.chip.vcek()


def _check_selection(firmware: SnpFirmware, guest: SnpGuest, select: int) -> None:
    usable = {
        KeySelect.VLEK_OR_VCEK: firmware.vlek is not None or not guest.vcek_dis,
        KeySelect.VCEK: not guest.vcek_dis,
        KeySelect.VLEK: firmware.vlek is not None,
    }
    require(
        any(usable[one] for one in KeySelect if one == select),
        SevStatus.INVALID_KEY,
        f"the endorsement key {select} cannot be used",
    )


def _check_vmpl(vmpl: int, message: GuestMessage) -> int:
    require(
        message.vmpck <= vmpl <= 3,
        SevStatus.INVALID_PARAM,
        f"vmpl {vmpl} was asked for at vmpl {message.vmpck}",
    )
    return vmpl


def _key(firmware: SnpFirmware, guest: SnpGuest, message: GuestMessage, asked: dict[str, bytes]) -> bytes:
    """MSG_KEY_REQ: mix what the guest selected, and what is always mixed, into a root key."""
    require(bool(asked), SevStatus.INVALID_PARAM, "reserved bytes are not zero")
    numbers = {name: _number(value) for name, value in asked.items()}
    root_select, select = numbers["root_key_select"] & 1, numbers["root_key_select"] >> 1 & 3
    require(numbers["root_key_select"] < 8, SevStatus.INVALID_PARAM, "reserved bits of the root key are set")
    if root_select != _VMRK:
        require(not firmware.mask_chip_key, SevStatus.INVALID_KEY, "the chip's key is masked")
        _check_selection(firmware, guest, select)
    vmpl = _check_vmpl(numbers["vmpl"], message)
    chosen = numbers["guest_field_select"]
    known = _TCB_VERSION << 1 if message.version == 1 else _MITIGATIONS << 1
    require(chosen < known, SevStatus.INVALID_PARAM, f"guest fields {chosen:#x} are unknown")
    chip, block = firmware.chip, guest.id_block
    tcb = chip.reported
    if chosen & _TCB_VERSION:
        tcb = chip.parse(asked["tcb_version"])
        require(
            tcb.within(chip.committed.tcb), SevStatus.INVALID_PARAM, f"tcb {tcb} is above the committed one"
        )
    svn = numbers["guest_svn"]
    if chosen & _GUEST_SVN:
        most = block.guest_svn if block else 0
        require(svn <= most, SevStatus.INVALID_PARAM, f"guest svn {svn} is above {most}")
    mitigations = numbers.get("launch_mit_vector", 0)
    if chosen & _MITIGATIONS:
        active = mitigations & ~guest.launch_mitigations == 0
        require(active, SevStatus.INVALID_PARAM, "mitigations that were not active at launch")
    owner = guest.author_key_digest if guest.author_key_en else guest.id_key_digest
    mixed = (
        bytes((root_select, 2 if guest.author_key_en else int(block is not None)))
        + chosen.to_bytes(8, "little")
        + vmpl.to_bytes(4, "little")
        + guest.host_data
        + owner
        + (chip.pack(tcb) if chosen & _TCB_VERSION else bytes(8))
        + (svn if chosen & _GUEST_SVN else 0).to_bytes(4, "little")
        + (guest.measurement if chosen & _MEASUREMENT else bytes(48))
        + (block.family_id if block and chosen & _FAMILY_ID else bytes(16))
        + (block.image_id if block and chosen & _IMAGE_ID else bytes(16))
        + (guest.policy.value if chosen & _POLICY else 0).to_bytes(8, "little")
        + (mitigations if chosen & _MITIGATIONS else 0).to_bytes(8, "little")
    )
    root = _root(firmware, guest, root_select, select, tcb)
    key = hmac.digest(root, b"\x01\0\0\0" + _KEY_LABEL + b"\0" + mixed + b"\0\x01\0\0", hashlib.sha256)
    return bytes(RESPONSE_HEAD_BYTES) + key


def _root(firmware: SnpFirmware, guest: SnpGuest, root_select: int, select: int, tcb: Tcb) -> bytes:
    if root_select == _VMRK:
        return guest.vmrk
    if select != KeySelect.VCEK and firmware.vlek is not None:
        return firmware.vlek[-48:]
    return firmware.chip.fuses.versioned_secret(tcb)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
