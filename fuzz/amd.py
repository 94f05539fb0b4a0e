"""Fuzz target: all that hosts, guests and clients send to emulated AMD firmware, and to its vendor's key service."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache

from enarx.attest.snp._launch import PageType
from enarx_emulator.amd.chip import Chip, Fuses, product
from enarx_emulator.amd.messages import GuestMessage
from enarx_emulator.amd.sev import SevFirmware
from enarx_emulator.amd.snp import SnpFirmware
from enarx_emulator.amd.vendor import AmdVendor, kds_answer
from enarx_emulator.errors import FirmwareError
from enarx_emulator.seed import Seed
from enarx_emulator.state import Memory

_FUSES = Fuses(product("genoa"), Seed(b"a chip of fuzz targets"))


def _zeros(size: int) -> bytes:
    return bytes(size)


@cache
def _vendor() -> AmdVendor:
    return AmdVendor(Memory(), key_bits=2048)


@cache
def _snp() -> SnpFirmware:
    """A firmware with a guest that runs (1) and one that is launched (2)."""
    made = SnpFirmware(Chip(_FUSES), random=_zeros)
    made.init()
    for asid in (1, 2):
        handle = made.gctx_create()
        made.launch_start(handle, 0x30000)
        made.activate(handle, asid)
    made.launch_finish(1)
    return made


@cache
def _sev() -> SevFirmware:
    made = SevFirmware(_FUSES, random=_zeros)
    made.init(es=True)
    return made


def one(data: bytes) -> None:
    """Send ``data`` to all of them: every refusal is a status, no answer an exception."""
    _guest(data)
    _snp_host(data)
    _sev_host(data)
    text = data[:512].decode("latin-1")
    path, _, query = text.partition("?")
    pairs = dict(part.partition("=")[::2] for part in query.split("&") if part)
    assert kds_answer(_vendor(), path, pairs).status in (200, 400, 404)


def _guest(data: bytes) -> None:
    """As a message, and as the payload of one that is sealed as it should be."""
    firmware = _snp()
    with contextlib.suppress(FirmwareError):
        firmware.guest_request(1, data)
    context = firmware.running(1)
    kind, version, level = data[:3].ljust(3, b"\0")
    payload = data[3:3900].ljust(-(-len(data[3:3900]) // 16) * 16, b"\0") or bytes(16)
    message = GuestMessage(
        sequence=context.counts[level & 3] + 1, type=kind, version=version, vmpck=level & 3, payload=payload
    )
    with contextlib.suppress(FirmwareError):
        GuestMessage.open(firmware.guest_request(1, message.seal(context.vmpcks[level & 3])), context.vmpcks)


def _snp_host(data: bytes) -> None:
    firmware = _snp()
    kind, number = data[:1].ljust(1, b"\0")[0], int.from_bytes(data[1:9], "little")
    acts: list[Callable[[], object]] = [
        lambda: firmware.launch_update(2, PageType.CPUID, 0, data.ljust(4096, b"\0")[:4096]),
        lambda: firmware.launch_update(2, kind, number, data),
        lambda: firmware.launch_finish(
            2, id_block=data[:96], id_auth=data[96:4192], auth_key_en=bool(kind & 1)
        ),
        lambda: firmware.vlek_load(data),
        lambda: firmware.config(reported_tcb=data[:8]),
        lambda: firmware.launch_start(firmware.gctx_create(), number) if kind == 7 else None,
    ]
    for act in acts:
        with contextlib.suppress(FirmwareError):
            act()


def _sev_host(data: bytes) -> None:
    firmware = _sev()
    acts: list[Callable[[], object]] = [
        lambda: firmware.launch_start(data[:4], certificate=data[4:2088], session=data[2088:2216]),
        lambda: firmware.pek_cert_import(data[:2084], data[2084:4168]),
        lambda: firmware.launch_secret(1, header=data[:52], payload=data[52:], address=0),
        lambda: firmware.launch_update_data(1, int.from_bytes(data[:8], "little"), data[8:]),
        lambda: firmware.download_firmware((data[0], data[1]), data[2]) if len(data) > 2 else None,
    ]
    for act in acts:
        with contextlib.suppress(FirmwareError):
            act()
