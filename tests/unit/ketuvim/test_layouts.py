"""Every ioctl number and every layout agrees with the kernel's own headers, as a C compiler reads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from struct import Struct
from typing import Final

import pytest

from ketuvim import _numbers, _structs, capabilities, exits
from ketuvim._ioctl import Request

SIZES: Final = {
    "kvm_regs": _structs.REGS,
    "kvm_sregs": _structs.SREGS,
    "kvm_sregs2": _structs.SREGS2,
    "kvm_fpu": _structs.FPU,
    "kvm_xcr": _structs.XCR,
    "kvm_xcrs": _structs.XCRS,
    "kvm_msr_entry": _structs.MSR,
    "kvm_cpuid_entry2": _structs.CPUID_ENTRY,
    "kvm_vcpu_events": _structs.EVENTS,
    "kvm_debugregs": _structs.DEBUG_REGISTERS,
    "kvm_guest_debug": _structs.GUEST_DEBUG,
    "kvm_translation": _structs.TRANSLATION,
    "kvm_enable_cap": _structs.ENABLE_CAP,
    "kvm_userspace_memory_region": _structs.MEMORY_REGION,
    "kvm_userspace_memory_region2": _structs.MEMORY_REGION2,
    "kvm_create_guest_memfd": _structs.GUEST_MEMFD,
    "kvm_memory_attributes": _structs.MEMORY_ATTRIBUTES,
    "kvm_dirty_log": _structs.DIRTY_LOG,
    "kvm_coalesced_mmio_zone": _structs.COALESCED_ZONE,
    "kvm_coalesced_mmio": _structs.COALESCED_ENTRY,
    "kvm_coalesced_mmio_ring": _structs.COALESCED_RING,
    "kvm_irq_level": _structs.IRQ_LEVEL,
    "kvm_irqfd": _structs.IRQFD,
    "kvm_ioeventfd": _structs.IOEVENTFD,
    "kvm_pit_config": _structs.PIT_CONFIG,
    "kvm_msi": _structs.MSI,
    "kvm_irq_routing_entry": _structs.IRQ_ROUTING_ENTRY,
    "kvm_clock_data": _structs.CLOCK,
    "kvm_sev_cmd": _structs.SEV_CMD,
    "kvm_sev_init": _structs.SEV_INIT,
    "kvm_sev_launch_start": _structs.SEV_LAUNCH_START,
    "kvm_sev_launch_update_data": _structs.SEV_BUFFER,
    "kvm_sev_launch_measure": _structs.SEV_BUFFER,
    "kvm_sev_launch_secret": _structs.SEV_LAUNCH_SECRET,
    "kvm_sev_guest_status": _structs.SEV_GUEST_STATUS,
    "kvm_sev_snp_launch_start": _structs.SNP_LAUNCH_START,
    "kvm_sev_snp_launch_update": _structs.SNP_LAUNCH_UPDATE,
    "kvm_sev_snp_launch_finish": _structs.SNP_LAUNCH_FINISH,
    "kvm_enc_region": _structs.ENC_REGION,
    "sev_issue_cmd": _structs.PSP_CMD,
    "sev_user_data_status": _structs.PSP_STATUS,
    "sev_user_data_pdh_cert_export": _structs.PSP_PDH_CERT_EXPORT,
    "sev_user_data_get_id2": _structs.PSP_GET_ID2,
    "sev_user_data_pek_csr": _structs.PSP_PEK_CSR,
}
OFFSETS: Final = {
    ("kvm_run", "immediate_exit"): _structs.RUN_IMMEDIATE_EXIT,
    ("kvm_run", "exit_reason"): _structs.RUN_REASON,
    ("kvm_run", "flags"): _structs.RUN_FLAGS,
    ("kvm_run", "io"): _structs.RUN_EXIT,
    ("kvm_run", "io.data_offset"): _structs.RUN_EXIT + 8,
    ("kvm_run", "mmio.data"): exits.MMIO_DATA,
    ("kvm_run", "mmio.is_write"): _structs.RUN_EXIT + exits.MMIO.size - 1,
    ("kvm_run", "hypercall.ret"): exits.HYPERCALL_RESULT,
    ("kvm_run", "hypercall.longmode"): exits.HYPERCALL_RESULT + 8,
    ("kvm_run", "msr.data"): exits.MSR_DATA,
    ("kvm_run", "msr.index"): exits.MSR_DATA - 4,
    ("kvm_run", "internal.data"): _structs.RUN_EXIT + 8,
    ("kvm_run", "system_event.data"): _structs.RUN_EXIT + 8,
    ("kvm_run", "debug.arch.pc"): _structs.RUN_EXIT + 8,
    ("kvm_run", "memory_fault.gpa"): _structs.RUN_EXIT + 8,
    ("kvm_run", "kvm_valid_regs"): _structs.RUN_SYNC,
    ("kvm_run", "s"): _structs.RUN_SYNC_REGS,
    ("kvm_sev_snp_launch_finish", "host_data"): 19,
    ("kvm_sev_snp_launch_finish", "flags"): 54,
    ("kvm_sev_launch_secret", "trans_uaddr"): 32,
    ("kvm_vcpu_events", "exception_payload"): 56,
    ("kvm_vcpu_events", "triple_fault"): 28,
    ("kvm_segment", "unusable"): 22,
}


def assertions() -> list[str]:
    """The C text that compiles only where all of it is so."""
    requests = [value for value in vars(_numbers).values() if isinstance(value, Request)]
    lines = [f"_Static_assert({one.name} == {one.number}u, {one.name!r});" for one in requests]
    lines += [
        f'_Static_assert(sizeof(struct {name}) == {layout.size}, "{name}");' for name, layout in SIZES.items()
    ]
    lines += [
        f'_Static_assert(__builtin_offsetof(struct {name}, {member}) == {at}, "{name}.{member}");'
        for (name, member), at in OFFSETS.items()
    ]
    lines += [
        f'_Static_assert(KVM_CAP_{one.name} == {one.value}, "{one.name}");' for one in capabilities.Capability
    ]
    return [line.replace("'", '"') for line in lines]


def compiled(lines: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    source = folder / "layouts.c"
    source.write_text("#include <linux/kvm.h>\n#include <linux/psp-sev.h>\n" + "\n".join(lines) + "\n")
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl"]
    command = [*compiler, "-c", str(source), "-o", str(source.with_suffix(".o"))]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@pytest.mark.slow
def test_the_kernels_headers_agree(tmp_path: Path) -> None:
    lines = assertions()
    assert len(lines) > 150
    done = compiled(lines, tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_layout_is_checked() -> None:
    own = {
        "U32",
        "U64",
        "XSAVE",
        "LAPIC",
        "RUN_HEADER",
        "RUN_SYNC_HEADER",
        "SIGNAL_MASK",
        "SIGNAL_MASK_HEADER",
    }
    own |= {"MSR_HEADER", "MSR_LIST", "CPUID_HEADER", "MP_STATE", "IRQ_ROUTING_HEADER"}
    layouts = {name for name, value in vars(_structs).items() if isinstance(value, Struct)}
    checked = {name for name in layouts for layout in SIZES.values() if getattr(_structs, name) is layout}
    assert layouts - checked == own
