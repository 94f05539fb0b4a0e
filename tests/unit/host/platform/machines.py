"""Machines to be judged: files as Linux shows them, registers as the processors give them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from enarx.host.platform import Machine
from enarx.host.platform._machine import Cpuid, Registers

NOW: Final = datetime(2026, 11, 23, tzinfo=UTC)
TOMORROW, YESTERDAY = NOW + timedelta(days=1), NOW - timedelta(days=1)
Leaves = Mapping[tuple[int, int], Registers]


def text_leaves(vendor: str, brand: str, highest: int) -> dict[tuple[int, int], Registers]:
    """Give the leaves that hold names."""
    ebx, edx, ecx = struct.unpack("<3I", vendor.encode())
    leaves: dict[tuple[int, int], Registers] = {(0, 0): (highest, ebx, ecx, edx)}
    padded = brand.encode().ljust(48, b"\0")
    for number in range(3):
        leaves[0x8000_0002 + number, 0] = struct.unpack_from("<4I", padded, 16 * number)
    return leaves


MILAN: Final[Leaves] = text_leaves("AuthenticAMD", "AMD EPYC 7313 16-Core Processor", 0x10) | {
    (1, 0): (0x00A0_0F11, 0, 0x7EFA_320B, 0x178B_FBFF),
    (7, 0): (0, 0x219C_97A9, 0x0040_069C, 0x10),
    (0x8000_001F, 0): (0x0101_FD3F, 0x0000_4173, 0x0000_01FD, 0x0000_0064),
}
SAPPHIRE_RAPIDS: Final[Leaves] = text_leaves("GenuineIntel", "Intel(R) Xeon(R) Gold 6430", 0x20) | {
    (1, 0): (0x0008_06F8, 0, 0x7FFE_FBFF, 0xBFEB_FBFF),
    (7, 0): (2, 0xF3BF_BFFF, 0xFB41_7FFE, 0xFFDD_4432),
    (0x12, 0): (0x0000_0403, 0x0000_0001, 0, 0x0000_2F1F),
    (0x12, 1): (0x0000_0036, 0, 0x0000_00E7, 0),
    (0x12, 2): (0x7020_0001, 0x10, 0x7E60_0001, 0),
    (0x12, 3): (0x0000_0001, 0x20, 0x7E80_0001, 1),
    (0x12, 4): (0, 0, 0, 0),
}
LAPTOP: Final[Leaves] = text_leaves("GenuineIntel", "Intel(R) Core(TM) i7-1165G7", 0x1B) | {
    (1, 0): (0x0008_06C1, 0, 0x7FFA_FBBF, 0xBFEB_FBFF),
    (7, 0): (0, 0xF3BF_A7EB, 0x18C0_5FCE, 0xFC10_0510),
    (0x12, 0): (0, 0, 0, 0),
}


@dataclass(frozen=True, kw_only=True)
class Model:
    """A machine that can be changed before it is built."""

    files: Mapping[str, bytes]
    leaves: Leaves = field(default_factory=dict)
    machine: str = "x86_64"
    kvm: int | None = 12
    qemu: str = "QEMU emulator version 11.1.3"
    memlock: tuple[int, int] = (-1, -1)

    def without(self, *names: str) -> Model:
        """Leave files out."""
        return replace(self, files={name: data for name, data in self.files.items() if name not in names})

    def having(self, name: str, data: bytes) -> Model:
        """Add or change a file."""
        return replace(self, files={**self.files, name: data})

    def clearing(self, leaf: int, register: int, bit: int) -> Model:
        """Switch off one bit of CPUID."""
        registers = list(self.leaves[leaf, 0])
        assert registers[register] >> bit & 1, "the machine has it"
        registers[register] &= ~(1 << bit)
        changed = (registers[0], registers[1], registers[2], registers[3])
        return replace(self, leaves={**self.leaves, (leaf, 0): changed})

    def build(self, root: Path) -> Machine:
        """Write the files below ``root``."""
        for name, data in self.files.items():
            path = root / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return Machine(
            root=root,
            machine=self.machine,
            cpuid=self._cpuid(),
            kvm_version=lambda device: self.kvm if device.exists() else None,
            version_of=lambda program: self.qemu,
            memlock=self.memlock,
        )

    def _cpuid(self) -> Cpuid:
        if not self.leaves:
            return lambda leaf, subleaf: None
        return lambda leaf, subleaf: self.leaves.get((leaf, subleaf), (0, 0, 0, 0))


def crl(until: datetime) -> bytes:
    """Make a revocation list that is in force until ``until``."""
    builder = x509.CertificateRevocationListBuilder()
    builder = builder.issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test")]))
    builder = builder.last_update(until - timedelta(days=30)).next_update(until)
    signed = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(Encoding.DER)


def crl_cache(*lists: bytes) -> bytes:
    """Pack revocation lists with their addresses, as the cache file has them."""
    entries = [element(0x30, element(0x0C, b"https://example.com/crl") + one) for one in lists]
    return element(0x30, element(0x30, b"".join(entries)))


def tcb_cache(next_update: object) -> bytes:
    """Pack TCB information, as the cache file has it."""
    report = json.dumps({"tcbInfo": {"nextUpdate": next_update}}).encode()
    return element(0x30, element(0x30, b"") + element(0x04, report))


def element(tag: int, content: bytes) -> bytes:
    """Encode one element of DER."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


QEMU: Final = "/usr/bin/qemu-system-x86_64"
COMMON: Final[Mapping[str, bytes]] = {"/proc/self/stat": b"", "/dev/kvm": b"", QEMU: b""}
SNP_HOST: Final = Model(
    leaves=MILAN,
    files={
        **COMMON,
        "/dev/sev": b"",
        "/sys/module/kvm_amd/parameters/sev": b"Y\n",
        "/sys/module/kvm_amd/parameters/sev_es": b"Y\n",
        "/sys/module/kvm_amd/parameters/sev_snp": b"Y\n",
        "/sys/fs/cgroup/cgroup.controllers": b"cpuset cpu io memory pids\n",
        "/var/cache/amd-sev/vcek-0011-03-00-08-115": b"certificate",
        "/var/cache/amd-sev/vcek-0011-03-00-08-115.lck": b"",
        "/var/cache/amd-sev/crls.der": crl_cache(crl(TOMORROW), crl(TOMORROW)),
        "/proc/cpuinfo": b"processor\t: 0\nvendor_id\t: AuthenticAMD\n"
        b"model name\t: AMD EPYC 7313 16-Core Processor\n"
        b"flags\t\t: fpu rdrand fsgsbase sme sev sev_es sev_snp vm_page_flush\n\nprocessor\t: 1\n",
    },
)
INTEL_HOST: Final = Model(
    leaves=SAPPHIRE_RAPIDS,
    files={
        **COMMON,
        "/dev/sgx_enclave": b"",
        "/sys/module/kvm_intel/parameters/tdx": b"Y\n",
        "/var/run/aesmd/aesm.socket": b"",
        "/var/run/tdx-qgs/qgs.socket": b"",
        "/var/cache/intel-sgx/crls.der": crl_cache(crl(TOMORROW)),
        "/var/cache/intel-sgx/fmspc.txt": b"00806F050000",
        "/var/cache/intel-sgx/tcb.der": tcb_cache(TOMORROW.isoformat()),
        "/proc/cpuinfo": b"processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold 6430\n"
        b"flags\t\t: fpu rdrand fsgsbase sgx sgx_lc tme tdx_host_platform\n\n",
    },
)
POWER9_HOST: Final = Model(
    machine="ppc64le",
    files={
        "/proc/self/stat": b"",
        "/dev/kvm": b"",
        "/usr/bin/qemu-system-ppc64": b"",
        "/sys/firmware/ultravisor/udbg": b"",
        "/sys/module/kvm_hv/refcnt": b"1\n",
        "/proc/cpuinfo": b"processor\t: 0\ncpu\t\t: POWER9, altivec supported\nclock\t\t: 3800.000000MHz\n\n"
        b"processor\t: 1\n\ntimebase\t: 512000000\nplatform\t: PowerNV\n",
    },
)
BARE_LAPTOP: Final = Model(
    leaves=LAPTOP,
    qemu="QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)",
    files={
        **COMMON,
        "/proc/cpuinfo": b"processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Core(TM) i7-1165G7\n"
        b"flags\t\t: fpu rdrand fsgsbase\n\n",
    },
)
MODELS: Final = {"snp": SNP_HOST, "intel": INTEL_HOST, "power9": POWER9_HOST, "laptop": BARE_LAPTOP}
