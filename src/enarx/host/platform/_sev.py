"""AMD SEV, SEV-ES and SEV-SNP (AMD 24593 section 15.34; Linux, virt/kvm/x86/amd-memory-encryption.rst)."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Final

from enarx.host.platform._caches import AMD_CACHE, crl_cache, vcek_cache
from enarx.host.platform._cpu import bit, brand, number, processor
from enarx.host.platform._facts import Backend, Fact
from enarx.host.platform._machine import EAX, EBX, ECX, EDX, Machine, device, kvm, switched_on

DEVICE: Final = "/dev/sev"
PARAMETERS: Final = "/sys/module/kvm_amd/parameters"
LEAF: Final = 0x8000_001F
KEEP_LOCKS: Final = 5 << 20
"""Bytes of locked memory that one keep needs."""
IN_FIRMWARE: Final = "switch it on in the firmware's setup (SMEE, SEV)"
NO_DRIVER: Final = "load the kernel module ccp; the firmware must have the secure processor switched on"


def snp(machine: Machine, now: datetime) -> Backend:
    """Judge the machine for SEV-SNP, the only kind that proves itself by reports of its own."""
    enabled = switched_on(
        machine,
        "SEV-SNP is enabled in host kernel",
        f"{PARAMETERS}/sev_snp",
        "use Linux 6.11 or later, and switch on SNP, the RMP table and the IOMMU in the firmware's setup",
    )
    return Backend(
        name="snp",
        data=(
            device(machine, DEVICE, NO_DRIVER, enabled),
            kvm(machine),
            processor(
                machine,
                "AuthenticAMD",
                _epyc(machine),
                _sme(machine),
                _sev(machine),
                bit(
                    machine,
                    "Secure Encrypted Virtualization Secure Nested Paging (SEV-SNP)",
                    (LEAF, 0, EAX, 4),
                    "this needs EPYC of the third generation (Milan) or later",
                    flag="sev_snp",
                ),
                bit(
                    machine, "Page Flush MSR available", (LEAF, 0, EAX, 2), IN_FIRMWARE, flag="vm_page_flush"
                ),
            ),
        ),
        configuration=(
            *_access(machine),
            _memlock(machine),
            *snp_collateral(machine, now),
        ),
    )


def snp_collateral(machine: Machine, now: datetime) -> tuple[Fact, Fact]:
    """State what lies on the machine for who verifies its reports; they can fetch it themselves."""
    lists = f"{AMD_CACHE}/crls.der"
    advice = "fetch the revocation lists from AMD's key distribution service"
    return vcek_cache(machine), crl_cache(machine, "AMD CRL cache file", lists, now, advice)


def sev(machine: Machine) -> Backend:
    """Judge the machine for SEV and SEV-ES, which are proven before they start."""
    enabled = switched_on(
        machine, "SEV is enabled in host kernel", f"{PARAMETERS}/sev", "load kvm_amd with sev=1"
    )
    encrypted_state = switched_on(
        machine, "SEV-ES is enabled in host kernel", f"{PARAMETERS}/sev_es", "load kvm_amd with sev_es=1"
    )
    return Backend(
        name="sev",
        data=(
            device(machine, DEVICE, NO_DRIVER, enabled, encrypted_state),
            kvm(machine),
            processor(
                machine,
                "AuthenticAMD",
                _epyc(machine),
                _sme(machine),
                _sev(machine),
                bit(
                    machine,
                    "Secure Encrypted Virtualization Encrypted State (SEV-ES)",
                    (LEAF, 0, EAX, 3),
                    "this needs EPYC of the second generation (Rome) or later",
                    flag="sev_es",
                ),
            ),
        ),
        configuration=(*_access(machine), _memlock(machine)),
    )


def _epyc(machine: Machine) -> Fact:
    passed = "EPYC" in brand(machine).upper()
    return Fact(
        name="Microcode support",
        passed=passed,
        advice="" if passed else "only processors of the EPYC family have it",
    )


def _sme(machine: Machine) -> Fact:
    return bit(
        machine,
        "Secure Memory Encryption (SME)",
        (LEAF, 0, EAX, 0),
        IN_FIRMWARE,
        number(machine, "Physical address bit reduction", (LEAF, 0, EBX), 6, 6),
        number(machine, "C-bit location in page table entry", (LEAF, 0, EBX), 0, 6),
        flag="sme",
    )


def _sev(machine: Machine) -> Fact:
    return bit(
        machine,
        "Secure Encrypted Virtualization (SEV)",
        (LEAF, 0, EAX, 1),
        IN_FIRMWARE,
        number(machine, "Number of encrypted guests supported simultaneously", (LEAF, 0, ECX), 0, 32),
        number(machine, "Minimum ASID value for SEV-enabled, SEV-ES disabled guest", (LEAF, 0, EDX), 0, 32),
        flag="sev",
    )


def _access(machine: Machine) -> tuple[Fact, Fact]:
    advice = f"give this user access to {DEVICE}, for example by a udev rule with a group"
    reads, writes = machine.opens(DEVICE, os.O_RDONLY), machine.opens(DEVICE, os.O_WRONLY)
    return (
        Fact(name=f"{DEVICE} is readable by user", passed=reads, advice="" if reads else advice),
        Fact(name=f"{DEVICE} is writable by user", passed=writes, advice="" if writes else advice),
    )


def _memlock(machine: Machine) -> Fact:
    soft, hard = machine.memlock
    keeps = "any number of" if soft < 0 else f"~{soft // KEEP_LOCKS}"
    bounds = ", ".join(
        f"{name} limit = {'unlimited' if value < 0 else f'{value} bytes'}"
        for name, value in (("soft", soft), ("hard", hard))
    )
    passed = soft < 0 or soft >= KEEP_LOCKS
    return Fact(
        name="MEMLOCK rlimit allows for",
        passed=passed,
        info=f"{keeps} keeps ({bounds})",
        advice=""
        if passed
        else f"raise it with ulimit -l or LimitMEMLOCK=: a keep locks {KEEP_LOCKS >> 20} MiB",
    )
