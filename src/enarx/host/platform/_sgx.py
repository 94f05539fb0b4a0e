"""Intel SGX (Intel SDM volume 3D, chapter 37; Linux, arch/x86/sgx.rst)."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Final

from enarx.host.platform._caches import INTEL_CACHE, crl_cache, tcb_cache
from enarx.host.platform._cpu import ASK_AS_ROOT, UNKNOWN, bit, flag_names, humanize, processor
from enarx.host.platform._facts import Backend, Fact
from enarx.host.platform._machine import EAX, EBX, ECX, EDX, Machine

LEAF: Final = 0x12
IN_FIRMWARE: Final = "switch on SGX in the firmware's setup; enabled, not software controlled"
AESM: Final = "/var/run/aesmd/aesm.socket"
ENCLAVE: Final = "/dev/sgx_enclave"
ATTRIBUTES: Final = (
    (0, "INIT"),
    (1, "DEBUG"),
    (2, "MODE64BIT"),
    (4, "PROVISIONKEY"),
    (5, "EINITTOKENKEY"),
    (6, "CET"),
    (7, "KSS"),
    (10, "AEXNOTIFY"),
)
XFRM: Final = (
    (0, "X87"),
    (1, "SSE"),
    (2, "AVX"),
    (3, "BNDREGS"),
    (4, "BNDCSR"),
    (5, "OPMASK"),
    (6, "ZMM_HI256"),
    (7, "HI16_ZMM"),
    (9, "PKRU"),
    (11, "CET_U"),
    (12, "CET_S"),
    (17, "TILECFG"),
    (18, "TILEDATA"),
)
MISC: Final = ((0, "EXINFO"), (1, "CPINFO"))
_SUBLEAVES: Final = range(2, 64)


def sgx(machine: Machine, now: datetime) -> Backend:
    """Judge the machine for SGX2 with flexible launch control."""
    opens = machine.opens(ENCLAVE, os.O_RDWR)
    driver = Fact(
        name="Driver",
        passed=opens,
        info=ENCLAVE,
        advice=""
        if opens
        else f"use Linux 5.11 or later, and give this user access to {ENCLAVE} (group sgx)",
    )
    crls = crl_cache(
        machine,
        "Intel CRL cache file",
        f"{INTEL_CACHE}/crls.der",
        now,
        "fetch the revocation lists from Intel's provisioning certification service",
    )
    return Backend(
        name="sgx",
        data=(driver, processor(machine, "GenuineIntel", support(machine)), crls, tcb_cache(machine, now)),
        configuration=(aesm(machine),),
    )


def support(machine: Machine) -> Fact:
    """State what the processor's SGX can do."""
    answer, attributes = machine.cpuid(LEAF, 0), machine.cpuid(LEAF, 1)
    told: tuple[Fact, ...] = ()
    if answer and attributes:
        sizes, low, high = answer[EDX], attributes[EAX], attributes[EBX]
        told = (
            Fact(name="Max Size (32-bit)", passed=True, info=humanize(1 << (sizes & 0xFF))),
            Fact(name="Max Size (64-bit)", passed=True, info=humanize(1 << (sizes >> 8 & 0xFF))),
            Fact(name="MiscSelect", passed=True, info=flag_names(answer[EBX], MISC)),
            Fact(name="Features", passed=True, info=flag_names(high << 32 | low, ATTRIBUTES)),
            Fact(name="Xfrm", passed=True, info=flag_names(attributes[EDX] << 32 | attributes[ECX], XFRM)),
        )
    return bit(
        machine,
        "SGX Support",
        (7, 0, EBX, 2),
        IN_FIRMWARE,
        bit(machine, "Version 1", (LEAF, 0, EAX, 0), IN_FIRMWARE, flag="sgx1"),
        bit(machine, "Version 2", (LEAF, 0, EAX, 1), "this needs a processor with SGX2 (EDMM)", flag="sgx2"),
        bit(
            machine,
            "FLC Support",
            (7, 0, ECX, 30),
            "switch on flexible launch control in the firmware's setup",
            flag="sgx_lc",
        ),
        *told,
        epc(machine),
        flag="sgx",
    )


def epc(machine: Machine) -> Fact:
    """State how much memory all enclaves share: the sections of CPUID 12h, from sub-leaf 2 on."""
    maximum, size = machine.cpuid(0, 0), 0
    if maximum is None:
        return Fact(name="EPC Size", passed=False, info=UNKNOWN, advice=ASK_AS_ROOT)
    for subleaf in _SUBLEAVES if maximum[EAX] >= LEAF else ():
        section = machine.cpuid(LEAF, subleaf)
        if section is None or section[EAX] & 0xF != 1:
            break
        size += (section[EDX] & 0xF_FFFF) << 32 | section[ECX] & 0xFFFF_F000
    return Fact(
        name="EPC Size",
        passed=size > 0,
        info=humanize(size),
        advice="" if size else "reserve some in the firmware",
    )


def aesm(machine: Machine) -> Fact:
    """State that the service that makes quotes listens."""
    there = machine.exists(AESM)
    return Fact(
        name="AESM Daemon Socket",
        passed=there,
        info=AESM,
        advice="" if there else "install and start Intel's aesmd",
    )
