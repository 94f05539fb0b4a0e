"""Layouts of the structures that cross into the kernel, named as in linux/kvm.h and asm/kvm.h (x86-64)."""

from __future__ import annotations

from struct import Struct
from typing import Final

SEGMENT: Final = "QIH9Bx"  # base, limit, selector; type present dpl db s l g avl unusable
TABLE: Final = "QH6x"  # base, limit

U32: Final = Struct("<I")
U64: Final = Struct("<Q")
REGS: Final = Struct("<18Q")
SREGS: Final = Struct("<" + SEGMENT * 8 + TABLE * 2 + "7Q4Q")
SREGS2: Final = Struct("<" + SEGMENT * 8 + TABLE * 2 + "7QQ4Q")
FPU: Final = Struct("<128sHHBxHQQ256sI4x")
XSAVE: Final = Struct("<4096s")
XCR: Final = Struct("<I4xQ")
XCRS: Final = Struct("<II256s128x")
MSR_HEADER: Final = Struct("<I4x")
MSR: Final = Struct("<I4xQ")
MSR_LIST: Final = U32
CPUID_HEADER: Final = Struct("<I4x")
CPUID_ENTRY: Final = Struct("<7I12x")
EVENTS: Final = Struct("<4BI4B3BxII4BB26xBQ")
DEBUG_REGISTERS: Final = Struct("<4QQQQ72x")
GUEST_DEBUG: Final = Struct("<I4x8Q")
MP_STATE: Final = U32
LAPIC: Final = Struct("<1024s")
TRANSLATION: Final = Struct("<QQBBB5x")
SIGNAL_MASK_HEADER: Final = U32
SIGNAL_MASK: Final = Struct("<IQ")
ENABLE_CAP: Final = Struct("<II4Q64x")

MEMORY_REGION: Final = Struct("<IIQQQ")
MEMORY_REGION2: Final = Struct("<IIQQQQI4x112x")
GUEST_MEMFD: Final = Struct("<QQ48x")
MEMORY_ATTRIBUTES: Final = Struct("<QQQQ")
DIRTY_LOG: Final = Struct("<I4xQ")
COALESCED_ZONE: Final = Struct("<QII")
COALESCED_ENTRY: Final = Struct("<QII8s")
COALESCED_RING: Final = Struct("<II")
IRQ_LEVEL: Final = Struct("<II")
IRQFD: Final = Struct("<IIII16x")
IOEVENTFD: Final = Struct("<QQIiI36x")
PIT_CONFIG: Final = Struct("<I60x")
MSI: Final = Struct("<IIIII12x")
IRQ_ROUTING_HEADER: Final = Struct("<II")
IRQ_ROUTING_ENTRY: Final = Struct("<III4x32s")
CLOCK: Final = Struct("<QI4xQQ16x")

# struct kvm_run: a header, the exit's own 256 bytes, then the registers that are shared without an ioctl.
RUN_HEADER: Final = Struct("<BB6xIBBHQQ")
RUN_EXIT: Final = RUN_HEADER.size
RUN_EXIT_SIZE: Final = 256
RUN_SYNC: Final = RUN_EXIT + RUN_EXIT_SIZE
RUN_SYNC_HEADER: Final = Struct("<QQ")  # kvm_valid_regs, kvm_dirty_regs
RUN_SYNC_REGS: Final = RUN_SYNC + RUN_SYNC_HEADER.size
RUN_IMMEDIATE_EXIT: Final = 1
RUN_REASON: Final = 8
RUN_FLAGS: Final = 14

SEV_CMD: Final = Struct("<I4xQII")
SEV_INIT: Final = Struct("<QIH2x32x")
SEV_LAUNCH_START: Final = Struct("<IIQI4xQI4x")
SEV_BUFFER: Final = Struct("<QI4x")  # launch_update_data and launch_measure
SEV_LAUNCH_SECRET: Final = Struct("<QI4xQI4xQI4x")
SEV_GUEST_STATUS: Final = Struct("<III")
SNP_LAUNCH_START: Final = Struct("<Q16sH6x32x")
SNP_LAUNCH_UPDATE: Final = Struct("<QQQBxH4x32x")
SNP_LAUNCH_FINISH: Final = Struct("<QQBBB32s3xH32x")
ENC_REGION: Final = Struct("<QQ")

# linux/psp-sev.h: packed structures of /dev/sev.
PSP_CMD: Final = Struct("<IQI")
PSP_STATUS: Final = Struct("<BBBIBI")
PSP_PDH_CERT_EXPORT: Final = Struct("<QIQI")
PSP_GET_ID2: Final = Struct("<QI")
PSP_PEK_CSR: Final = Struct("<QI")
