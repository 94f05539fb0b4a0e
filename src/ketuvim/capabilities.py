"""What KVM can do: extensions by number, and the kinds of virtual machine."""

from __future__ import annotations

from enum import IntEnum


class Capability(IntEnum):
    """An extension of KVM on x86; any other number can be asked for as well (linux/kvm.h, ``KVM_CAP_*``)."""

    IRQCHIP = 0
    HLT = 1
    USER_MEMORY = 3
    SET_TSS_ADDR = 4
    EXT_CPUID = 7
    NR_VCPUS = 9
    NR_MEMSLOTS = 10
    MP_STATE = 14
    COALESCED_MMIO = 15
    SYNC_MMU = 16
    USER_NMI = 22
    SET_GUEST_DEBUG = 23
    IRQ_ROUTING = 25
    IRQFD = 32
    PIT2 = 33
    IOEVENTFD = 36
    SET_IDENTITY_MAP_ADDR = 37
    ADJUST_CLOCK = 39
    INTERNAL_ERROR_DATA = 40
    VCPU_EVENTS = 41
    DEBUGREGS = 50
    ENABLE_CAP = 54
    XSAVE = 55
    XCRS = 56
    TSC_CONTROL = 60
    GET_TSC_KHZ = 61
    MAX_VCPUS = 66
    SYNC_REGS = 74
    SIGNAL_MSI = 77
    READONLY_MEM = 81
    IRQFD_RESAMPLE = 82
    ENABLE_CAP_VM = 98
    IOEVENTFD_NO_LENGTH = 100
    CHECK_EXTENSION_VM = 105
    MULTI_ADDRESS_SPACE = 118
    SPLIT_IRQCHIP = 121
    IOEVENTFD_ANY_LENGTH = 122
    MAX_VCPU_ID = 128
    IMMEDIATE_EXIT = 136
    X86_DISABLE_EXITS = 143
    GET_MSR_FEATURES = 153
    NESTED_STATE = 157
    COALESCED_PIO = 162
    EXCEPTION_PAYLOAD = 164
    MANUAL_DIRTY_LOG_PROTECT2 = 168
    X86_USER_SPACE_MSR = 188
    X86_MSR_FILTER = 189
    DIRTY_LOG_RING = 192
    X86_BUS_LOCK_EXIT = 193
    SREGS2 = 200
    EXIT_HYPERCALL = 201
    EXIT_ON_EMULATION_FAILURE = 204
    VM_GPA_BITS = 207
    XSAVE2 = 208
    SYSTEM_EVENT_DATA = 215
    X86_TRIPLE_FAULT_EVENT = 218
    X86_NOTIFY_VMEXIT = 219
    USER_MEMORY2 = 231
    MEMORY_FAULT_INFO = 232
    MEMORY_ATTRIBUTES = 233
    GUEST_MEMFD = 234
    VM_TYPES = 235
    GUEST_MEMFD_FLAGS = 244


class VmType(IntEnum):
    """What a virtual machine is for (``KVM_X86_*_VM``); ``SEV`` to ``TDX`` need the processor's help."""

    DEFAULT = 0
    SW_PROTECTED = 1
    SEV = 2
    SEV_ES = 3
    SNP = 4
    TDX = 5
