"""What Intel's instructions and modules answer when they refuse, with Intel's numbers and names."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from enarx_emulator.errors import FirmwareError

FAULT: Final = 0x40000000
"""How Linux marks that an SGX instruction raised an exception instead of giving an error code."""


class SgxStatus(IntEnum):
    """Error codes of ENCLS and ENCLU (Intel SDM volume 3D, "Error codes"); exceptions are ``FAULT`` and a vector."""

    SGX_INVALID_SIG_STRUCT = 1
    SGX_INVALID_ATTRIBUTE = 2
    SGX_INVALID_MEASUREMENT = 4
    SGX_INVALID_SIGNATURE = 8
    SGX_MAC_COMPARE_FAIL = 9
    SGX_INVALID_REPORTMACSTRUCT = 28
    SGX_INVALID_CPUSVN = 32
    SGX_INVALID_ISVSVN = 64
    SGX_INVALID_KEYNAME = 256
    UNDEFINED_OPCODE = FAULT | 6
    """#UD"""
    GENERAL_PROTECTION = FAULT | 13
    """#GP(0)"""
    PAGE_FAULT = FAULT | 14
    """#PF"""


class TdxStatus(IntEnum):
    """Completion status of TDH and TDG functions without its low half (Intel TDX Module ABI, "Completion status")."""

    TDX_OPERAND_INVALID = 0xC000010000000000
    TDX_OPERAND_ADDR_RANGE_ERROR = 0xC000010100000000
    TDX_PAGE_METADATA_INCORRECT = 0xC000030000000000
    TDX_TD_NOT_INITIALIZED = 0xC000060000000000
    TDX_TD_INITIALIZED = 0xC000060100000000
    TDX_TD_NOT_FINALIZED = 0xC000060200000000
    TDX_TD_FINALIZED = 0xC000060300000000
    TDX_TDCS_NOT_ALLOCATED = 0xC000060600000000
    TDX_NO_VCPUS = 0xC000060900000000
    TDX_TDCX_NUM_INCORRECT = 0xC000061000000000
    TDX_VCPU_STATE_INCORRECT = 0xC000070000000000
    TDX_MAX_VCPUS_EXCEEDED = 0xC000070500000000
    TDX_TD_KEYS_NOT_CONFIGURED = 0x8000081000000000
    TDX_KEY_CONFIGURED = 0x0000081500000000
    TDX_HKID_NOT_FREE = 0xC000082000000000
    TDX_EPT_WALK_FAILED = 0xC0000B0000000000
    TDX_EPT_ENTRY_STATE_INCORRECT = 0xC0000B0D00000000
    TDX_SERVTD_ALREADY_BOUND_FOR_TYPE = 0xC0000D0000000000
    TDX_SERVTD_ATTR_MISMATCH = 0xC0000D0200000000
    TDX_INVALID_CPUSVN = 0xC000100000000000
    TDX_INVALID_REPORTMACSTRUCT = 0xC000100100000000


class TdxOperand(IntEnum):
    """Which operand a status speaks of: its low half."""

    RAX = 0
    RCX = 1
    RDX = 2
    R8 = 8
    R9 = 9
    ATTRIBUTES = 64
    XFAM = 65
    EXEC_CONTROLS = 66
    EPTP_CONTROLS = 67
    MAX_VCPUS = 68
    TSC_FREQUENCY = 70
    TDR = 128
    TDCX = 129
    TDVPR = 130
    TDCS = 144
    SERVTD_BINDINGS = 174


class SgxError(FirmwareError):
    """An SGX instruction did not do what was asked."""

    status: SgxStatus

    def __init__(self, status: SgxStatus, message: str, *, hint: str = "") -> None:
        super().__init__(status, message, hint=hint)


class TdxError(FirmwareError):
    """The TDX module did not do what was asked."""

    status: TdxStatus

    def __init__(
        self, status: TdxStatus, message: str, *, operand: TdxOperand = TdxOperand.RAX, hint: str = ""
    ) -> None:
        super().__init__(status, message, hint=hint)
        self.operand = operand

    @property
    def code(self) -> int:
        """The completion status as it stands in RAX."""
        return self.status | self.operand
