"""What is said of machines that are not this one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.host.platform.machines import (
    BARE_LAPTOP,
    INTEL_HOST,
    MODELS,
    NOW,
    POWER9_HOST,
    QEMU,
    SNP_HOST,
    TOMORROW,
    YESTERDAY,
    Model,
    crl,
    crl_cache,
    element,
    tcb_cache,
)

from enarx.host.platform import Backend, Fact, Report, inspect, judge
from enarx.host.platform._cpu import humanize
from enarx.host.platform._machine import EAX, EBX, ECX
from enarx.host.platform._process import run_probe

SANDBOX = json.dumps([{"step": "user namespace", "applied": True, "detail": "uid 1000 outside"}])


class Judge:
    """Builds machines below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def report(self, model: Model, probe: str = SANDBOX) -> Report:
        self._count += 1
        return judge(model.build(self._folder / str(self._count)), now=NOW, probe=lambda: probe)

    def backend(self, model: Model, name: str, probe: str = SANDBOX) -> Backend:
        report = self.report(model, probe)
        return next(backend for backend in report.backends if backend.name == name)


@pytest.fixture
def judged(tmp_path: Path) -> Judge:
    return Judge(tmp_path)


def facts(backend: Backend) -> Iterator[Fact]:
    for fact in (*backend.data, *backend.configuration):
        yield from fact.all()


def failed(backend: Backend) -> list[str]:
    return [fact.name for fact in facts(backend) if not fact.passed]


def info(backend: Backend, name: str) -> str:
    return next(fact.info for fact in facts(backend) if fact.name == name)


@pytest.mark.parametrize(
    ("model", "usable"),
    [
        (SNP_HOST, {"snp", "sev", "kvm", "vm", "process"}),
        (INTEL_HOST, {"sgx", "tdx", "kvm", "vm", "process"}),
        (POWER9_HOST, {"pef", "vm", "process"}),
        (BARE_LAPTOP, {"kvm", "vm", "process"}),
    ],
    ids=list(MODELS),
)
def test_each_machine_has_its_backends(judged: Judge, model: Model, usable: set[str]) -> None:
    report = judged.report(model)
    assert {backend.name for backend in report.backends if backend.usable} == usable


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_what_fails_has_advice_and_what_passes_has_none(judged: Judge, model: Model) -> None:
    for backend in judged.report(model).backends:
        for fact in facts(backend):
            assert bool(fact.advice) is not fact.passed, (backend.name, fact)


SEV_PARAMETERS = "/sys/module/kvm_amd/parameters"
ONE_THING_MISSING = [
    ("snp", SNP_HOST.clearing(0x8000_001F, EAX, 0), "Secure Memory Encryption (SME)"),
    ("snp", SNP_HOST.clearing(0x8000_001F, EAX, 1), "Secure Encrypted Virtualization (SEV)"),
    ("snp", SNP_HOST.clearing(0x8000_001F, EAX, 2), "Page Flush MSR available"),
    (
        "snp",
        SNP_HOST.clearing(0x8000_001F, EAX, 4),
        "Secure Encrypted Virtualization Secure Nested Paging (SEV-SNP)",
    ),
    ("snp", SNP_HOST.having(f"{SEV_PARAMETERS}/sev_snp", b"N\n"), "SEV-SNP is enabled in host kernel"),
    ("snp", SNP_HOST.without(f"{SEV_PARAMETERS}/sev_snp"), "SEV-SNP is enabled in host kernel"),
    ("snp", replace(SNP_HOST, kvm=11), "API Version"),
    ("snp", replace(SNP_HOST, kvm=None), "API Version"),
    ("snp", SNP_HOST.without("/dev/kvm"), "Driver"),
    ("snp", replace(SNP_HOST, memlock=(5_000_000, 5_000_000)), "MEMLOCK rlimit allows for"),
    ("snp", SNP_HOST.without("/var/cache/amd-sev/vcek-0011-03-00-08-115"), "SEV-SNP VCEK key cache file"),
    ("snp", SNP_HOST.without("/var/cache/amd-sev/crls.der"), "AMD CRL cache file"),
    (
        "sev",
        SNP_HOST.clearing(0x8000_001F, EAX, 3),
        "Secure Encrypted Virtualization Encrypted State (SEV-ES)",
    ),
    ("sev", SNP_HOST.having(f"{SEV_PARAMETERS}/sev", b"0"), "SEV is enabled in host kernel"),
    ("sev", SNP_HOST.having(f"{SEV_PARAMETERS}/sev_es", b"0"), "SEV-ES is enabled in host kernel"),
    ("sgx", INTEL_HOST.without("/dev/sgx_enclave"), "Driver"),
    ("sgx", INTEL_HOST.clearing(7, EBX, 2), "SGX Support"),
    ("sgx", INTEL_HOST.clearing(7, ECX, 30), "FLC Support"),
    ("sgx", INTEL_HOST.clearing(0x12, EAX, 0), "Version 1"),
    ("sgx", INTEL_HOST.clearing(0x12, EAX, 1), "Version 2"),
    ("sgx", INTEL_HOST.without("/var/run/aesmd/aesm.socket"), "AESM Daemon Socket"),
    ("sgx", INTEL_HOST.without("/var/cache/intel-sgx/crls.der"), "Intel CRL cache file"),
    ("sgx", INTEL_HOST.without("/var/cache/intel-sgx/fmspc.txt"), "TCB & FMSPC cache"),
    ("sgx", INTEL_HOST.without("/var/cache/intel-sgx/tcb.der"), "TCB & FMSPC cache"),
    ("tdx", INTEL_HOST.clearing(7, ECX, 13), "Total Memory Encryption (TME)"),
    ("tdx", INTEL_HOST.clearing(7, EBX, 2), "SGX Support"),
    ("tdx", INTEL_HOST.without("/var/run/tdx-qgs/qgs.socket"), "Quote Generation Service socket"),
    ("tdx", replace(INTEL_HOST, qemu="QEMU emulator version 10.0.2"), "QEMU"),
    ("tdx", INTEL_HOST.without(QEMU), "QEMU"),
    ("pef", POWER9_HOST.without("/sys/firmware/ultravisor/udbg"), "Ultravisor"),
    ("pef", POWER9_HOST.without("/sys/module/kvm_hv/refcnt"), "KVM without a hypervisor below"),
    ("pef", POWER9_HOST.having("/proc/cpuinfo", b"cpu : POWER8 (architected)\n"), "CPU"),
    ("pef", POWER9_HOST.without("/usr/bin/qemu-system-ppc64"), "QEMU"),
    ("kvm", BARE_LAPTOP.clearing(7, EBX, 0), "CPU supports FSGSBASE instructions"),
    ("kvm", BARE_LAPTOP.clearing(1, ECX, 30), "CPU supports RDRAND instruction"),
    ("vm", replace(BARE_LAPTOP, qemu="QEMU emulator version 6.2.0"), "QEMU"),
    ("vm", replace(BARE_LAPTOP, qemu="no idea"), "QEMU"),
]


@pytest.mark.parametrize(("backend", "model", "name"), ONE_THING_MISSING)
def test_one_thing_missing_is_the_one_that_fails(
    judged: Judge, backend: str, model: Model, name: str
) -> None:
    found = judged.backend(model, backend)
    assert failed(found) == [name]
    assert not found.usable


def test_a_missing_device_fails_and_so_does_access_to_it(judged: Judge) -> None:
    found = judged.backend(SNP_HOST.without("/dev/sev"), "snp")
    assert failed(found) == ["Driver", "/dev/sev is readable by user", "/dev/sev is writable by user"]


def test_missing_caches_and_rights_leave_a_machine_available_but_not_configured(judged: Judge) -> None:
    found = judged.backend(SNP_HOST.without("/var/cache/amd-sev/crls.der"), "snp")
    assert found.available
    assert not found.configured


def test_the_position_of_the_c_bit_and_the_address_reduction_are_read_whole(judged: Judge) -> None:
    snp = judged.backend(SNP_HOST, "snp")
    assert info(snp, "C-bit location in page table entry") == "51"
    assert info(snp, "Physical address bit reduction") == "5"
    assert info(snp, "Number of encrypted guests supported simultaneously") == "509"
    assert info(snp, "Minimum ASID value for SEV-enabled, SEV-ES disabled guest") == "100"


def test_the_numbers_of_sgx(judged: Judge) -> None:
    sgx = judged.backend(INTEL_HOST, "sgx")
    assert info(sgx, "Max Size (32-bit)") == "2 GiB"
    assert info(sgx, "Max Size (64-bit)") == "128 TiB"
    assert info(sgx, "MiscSelect") == "EXINFO"
    assert info(sgx, "Features") == "DEBUG | MODE64BIT | PROVISIONKEY | EINITTOKENKEY"
    assert info(sgx, "Xfrm") == "X87 | SSE | AVX | OPMASK | ZMM_HI256 | HI16_ZMM"
    assert info(sgx, "EPC Size") == "7 GiB"  # 0x7e600000 + 0x1_7e800000


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (512, "512"), (513, "0 KiB"), (1 << 31, "2 GiB"), (1 << 47, "128 TiB")]
)
def test_sizes_have_the_largest_unit_that_leaves_at_most_512(size: int, text: str) -> None:
    assert humanize(size) == text


def test_without_cpuid_the_features_of_the_kernel_serve(judged: Judge) -> None:
    snp = judged.backend(replace(SNP_HOST, leaves={}), "snp")
    assert snp.usable
    assert info(snp, "C-bit location in page table entry") == "unknown"


def test_what_the_kernel_does_not_name_is_unknown_and_does_not_pass(judged: Judge) -> None:
    sgx = judged.backend(replace(INTEL_HOST, leaves={}), "sgx")
    assert failed(sgx) == ["Version 1", "Version 2", "EPC Size"]


def test_nobody_s_files_are_a_machine_without_anything(judged: Judge) -> None:
    report = judged.report(Model(files={}))
    assert not [backend.name for backend in report.backends if backend.usable]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (crl_cache(crl(TOMORROW), crl(YESTERDAY)), "expired on 2026-11-22"),
        (crl_cache(), "damaged"),
        (crl_cache(b""), "damaged"),
        (crl_cache(element(0x30, b"no list")), "damaged"),
        (b"", "damaged"),
        (b"\x30", "damaged"),
        (b"\xff" * 100, "damaged"),
    ],
)
def test_revocation_lists_must_all_be_in_force(judged: Judge, data: bytes, said: str) -> None:
    snp = judged.backend(SNP_HOST.having("/var/cache/amd-sev/crls.der", data), "snp")
    assert failed(snp) == ["AMD CRL cache file"]
    assert info(snp, "AMD CRL cache file").endswith(said)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (tcb_cache(YESTERDAY.isoformat()), "Intel TCB expired on 2026-11-22"),
        (tcb_cache("tomorrow"), "Damaged TCB report"),
        (tcb_cache("2027-01-01T00:00:00"), "Damaged TCB report"),
        (tcb_cache(None), "Damaged TCB report"),
        (b"\x30\x00", "Damaged TCB report"),
    ],
)
def test_tcb_information_must_be_in_force(judged: Judge, data: bytes, said: str) -> None:
    sgx = judged.backend(INTEL_HOST.having("/var/cache/intel-sgx/tcb.der", data), "sgx")
    assert failed(sgx) == ["TCB & FMSPC cache"]
    assert info(sgx, "TCB & FMSPC cache") == said


def test_locked_memory_is_counted_in_keeps(judged: Judge) -> None:
    snp = judged.backend(replace(SNP_HOST, memlock=(8 << 20, -1)), "snp")
    said = "~1 keeps (soft limit = 8388608 bytes, hard limit = unlimited)"
    assert info(snp, "MEMLOCK rlimit allows for") == said


def test_guests_of_a_tee_say_so(judged: Judge) -> None:
    assert info(judged.backend(INTEL_HOST.having("/dev/tdx_guest", b""), "tdx"), "Inside a TDX guest") != "no"
    secure = POWER9_HOST.having("/sys/devices/system/cpu/svm", b"1\n")
    assert info(judged.backend(secure, "pef"), "Inside a secure guest") != "no"


def test_a_tdx_host_needs_its_module(judged: Judge) -> None:
    found = judged.backend(INTEL_HOST.having("/sys/module/kvm_intel/parameters/tdx", b"N"), "tdx")
    assert failed(found) == ["TDX is enabled in host kernel", "TDX module"]


def test_quotes_are_for_who_may_write_to_the_services_socket(
    judged: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root, who runs the tests, may always
    found = judged.backend(INTEL_HOST, "tdx")
    assert failed(found) == ["Quote Generation Service socket"]
    assert "not for this user" in info(found, "Quote Generation Service socket")


def test_without_kvm_virtual_machines_are_emulated(judged: Judge) -> None:
    vm = judged.backend(BARE_LAPTOP.without("/dev/kvm"), "vm")
    assert vm.usable
    assert "slow" in info(vm, "KVM")


def test_a_refused_step_of_the_sandbox_is_named_with_its_reason(judged: Judge) -> None:
    answer = [{"step": "user namespace", "applied": False, "detail": "EPERM: operation not permitted"}]
    process = judged.backend(BARE_LAPTOP, "process", json.dumps(answer))
    assert process.available
    assert failed(process) == ["User namespace"]
    assert info(process, "User namespace") == "EPERM: operation not permitted"


@pytest.mark.parametrize("answer", ["", "null", "3", "[3]", "{}x", '[{"step": "x"}]', "[[]]"])
def test_a_probe_that_tells_nothing_is_a_sandbox_that_fails(judged: Judge, answer: str) -> None:
    assert failed(judged.backend(BARE_LAPTOP, "process", answer)) == ["Sandbox"]


def test_the_real_probe_tells_every_step() -> None:
    steps = json.loads(run_probe())
    names = {step["step"] for step in steps}
    assert {"user namespace", "empty root", "Landlock", "seccomp", "write xor execute"} <= names
    assert len(steps) == 15


def test_programs_of_a_foreign_tree_are_not_run(tmp_path: Path) -> None:
    program = tmp_path / "usr/bin/qemu-system-x86_64"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    inspect(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_this_machine_can_be_inspected() -> None:
    assert [backend.name for backend in inspect().backends] == [
        "sgx",
        "tdx",
        "snp",
        "sev",
        "pef",
        "kvm",
        "vm",
        "vm-tpm",
        "process",
    ]
