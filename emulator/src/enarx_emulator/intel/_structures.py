"""Structures that SGX instructions and the TDX module read and write, and one way of filling them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from enarx.attest.dcap._enclave import ENCLAVE_REPORT
from enarx.tcb.wire import Layout

TARGET_INFO: Final = Layout(
    name="TARGETINFO",
    size=512,
    fields={
        "mrenclave": range(32),
        "attributes": range(32, 48),
        "cet_attributes": range(48, 49),
        "config_svn": range(50, 52),
        "misc_select": range(52, 56),
        "config_id": range(64, 128),
    },
    reserved=(range(49, 50), range(56, 64), range(128, 512)),
)
KEY_REQUEST: Final = Layout(
    name="KEYREQUEST",
    size=512,
    fields={
        "key_name": range(2),
        "key_policy": range(2, 4),
        "isv_svn": range(4, 6),
        "cet_attributes_mask": range(6, 7),
        "cpu_svn": range(8, 24),
        "attributes_mask": range(24, 40),
        "key_id": range(40, 72),
        "misc_mask": range(72, 76),
        "config_svn": range(76, 78),
    },
    reserved=(range(7, 8), range(78, 512)),
)
"""Intel SDM volume 3D, chapter "Enclave access control and data structures"."""

REPORT_BYTES: Final = ENCLAVE_REPORT.size + 32 + 16
"""An enclave's REPORT: the body, KEYID and MAC."""

TD_PARAMS: Final = Layout(
    name="TD_PARAMS",
    size=1024,
    fields={
        "attributes": range(8),
        "xfam": range(8, 16),
        "max_vcpus": range(16, 18),
        "num_l2_vms": range(18, 19),
        "msr_config_ctls": range(19, 20),
        "eptp_controls": range(24, 32),
        "config_flags": range(32, 40),
        "tsc_frequency": range(40, 42),
        "mr_config_id": range(80, 128),
        "mr_owner": range(128, 176),
        "mr_owner_config": range(176, 224),
        "ia32_arch_capabilities": range(224, 232),
        "cpuid_values": range(256, 1024),
    },
    reserved=(range(20, 24), range(42, 80), range(232, 256)),
)
REPORT_MAC: Final = Layout(
    name="REPORTMACSTRUCT",
    size=256,
    fields={
        "report_type": range(4),
        "cpu_svn": range(16, 32),
        "tee_tcb_info_hash": range(32, 80),
        "tee_info_hash": range(80, 128),
        "report_data": range(128, 192),
        "mac": range(224, 256),
    },
    reserved=(range(4, 16), range(192, 224)),
)
TEE_TCB_INFO: Final = Layout(
    name="TEE_TCB_INFO",
    size=239,
    fields={
        "valid": range(8),
        "tee_tcb_svn": range(8, 24),
        "mrseam": range(24, 72),
        "mrsigner_seam": range(72, 120),
        "seam_attributes": range(120, 128),
        "tee_tcb_svn2": range(128, 144),
    },
    reserved=(range(144, 239),),
)
TD_INFO: Final = Layout(
    name="TDINFO_STRUCT",
    size=512,
    fields={
        "td_attributes": range(8),
        "xfam": range(8, 16),
        "mrtd": range(16, 64),
        "mr_config_id": range(64, 112),
        "mr_owner": range(112, 160),
        "mr_owner_config": range(160, 208),
        "rtmr0": range(208, 256),
        "rtmr1": range(256, 304),
        "rtmr2": range(304, 352),
        "rtmr3": range(352, 400),
        "mr_service_td": range(400, 448),
    },
    reserved=(range(448, 512),),
)
TD_REPORT_BYTES: Final = 1024
"""REPORTMACSTRUCT, TEE_TCB_INFO, 17 reserved bytes, TDINFO_STRUCT (Intel TDX Module ABI, TDREPORT_STRUCT)."""
TD_INFO_AT: Final = 512


def fill(layout: Layout, values: Mapping[str, int | bytes]) -> bytes:
    """Make a structure from its fields: numbers are little endian, what is not named is zero."""
    raw = bytearray(layout.size)
    for name, value in values.items():
        at = layout.fields[name]
        whole = value.to_bytes(len(at), "little") if isinstance(value, int) else value.ljust(len(at), b"\0")
        if len(whole) != len(at):
            raise ValueError(f"{layout.name}: {name} has {len(whole)} bytes, expected {len(at)}")
        raw[at.start : at.stop] = whole
    return bytes(raw)


def number(value: bytes) -> int:
    """Read a little-endian number."""
    return int.from_bytes(value, "little")
