"""What an enclave sees of its TEE through Gramine, in ``/dev/attestation``.

Source: Gramine, "Attestation and Secret Provisioning".
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from enarx_emulator.errors import FirmwareError
from enarx_emulator.tree import parts, refused

REPORT_DATA_BYTES: Final = 64
TARGET_INFO_BYTES: Final = 512
KEY_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Enclave:
    """What Gramine asks the processor and the quoting enclave for."""

    my_target_info: bytes
    report: Callable[[bytes, bytes], bytes]
    """EREPORT: from target info (512 bytes) and report data (64 bytes)."""
    quote: Callable[[bytes], bytes]
    """From report data (64 bytes)."""
    keys: Mapping[str, bytes] = field(default_factory=dict)
    """Sealing keys of 16 bytes: ``_sgx_mrenclave``, ``_sgx_mrsigner``."""


class AttestationTree:
    """``attestation/…``: Gramine's device of one enclave."""

    def __init__(self, enclave: Enclave) -> None:
        self._enclave = enclave
        self._written = {
            "user_report_data": bytes(REPORT_DATA_BYTES),
            "target_info": bytes(TARGET_INFO_BYTES),
        }
        self._keys: dict[str, bytes] = {"default": b""}

    def make(self, path: str) -> None:
        """Nothing can be made here."""
        raise refused(errno.EACCES, path)

    def remove(self, path: str) -> None:
        """Nothing can be removed here."""
        raise refused(errno.EACCES, path)

    def list(self, path: str) -> list[str]:
        """Give the names of files."""
        match parts(path):
            case ["attestation"]:
                more = ["attestation_type", "keys", "my_target_info", "quote", "report"]
                return sorted([*self._written, *more])
            case ["attestation", "keys"]:
                return sorted([*self._keys, *self._enclave.keys])
        raise refused(errno.ENOENT, path)

    def write(self, path: str, data: bytes) -> None:
        """Set report data or target info, padded with zeros or cut to their size, or a key of 16 bytes."""
        match parts(path):
            case ["attestation", name] if name in self._written:
                size = len(self._written[name])
                self._written[name] = data[:size].ljust(size, b"\0")
            case ["attestation", "keys", name] if name in self._keys:
                if len(data) != KEY_BYTES:
                    raise refused(errno.EACCES, path)
                self._keys[name] = data
            case _:
                self.read(path)
                raise refused(errno.EACCES, path)

    def read(self, path: str) -> bytes:
        """Read a file; ``report`` and ``quote`` are made over what was written."""
        data = self._written["user_report_data"]
        try:
            match parts(path):
                case ["attestation", name] if name in self._written:
                    return self._written[name]
                case ["attestation", "attestation_type"]:
                    return b"dcap"
                case ["attestation", "my_target_info"]:
                    return self._enclave.my_target_info
                case ["attestation", "report"]:
                    return self._enclave.report(self._written["target_info"], data)
                case ["attestation", "quote"]:
                    return self._enclave.quote(data)
                case ["attestation", "keys", name] if name in self._keys:
                    return self._keys[name]
                case ["attestation", "keys", name] if name in self._enclave.keys:
                    return self._enclave.keys[name]
                case ["attestation"] | ["attestation", "keys"]:
                    raise refused(errno.EISDIR, path)
        except FirmwareError as error:
            raise OSError(errno.EACCES, str(error), path) from error
        raise refused(errno.ENOENT, path)
