"""Expected measurements: what evidence must show when exactly these files were started. Pure functions, no files read.

    firmware = parse_sev_firmware(ovmf)
    kernel = hash_kernel(vmlinuz, initrd=initrd, cmdline="quiet")
    cpu = CPU_SIGNATURES["EPYC-v4"]
    snp_launch_digest(firmware, vcpus=1, cpu_signature=cpu, kernel=kernel)

SEV, SEV-ES, SEV-SNP: ``sev_launch_digest``, ``sev_es_launch_digest``, ``snp_launch_digest``, ``snp_svsm_launch_digest``
SNP ID block: ``IdBlock``, ``build_id_auth``, ``verify_id_auth``
SGX: ``mrenclave``, ``sgxs_mrenclave``, ``verify_sigstruct``, ``build_sigstruct``
TDX: ``mrtd``, ``rtmr0``, ``kernel_rtmr1``, ``rtmr2``
TPM: ``expected_pcrs``
event logs: ``parse_tpm_event_log``, ``parse_cc_event_log``, ``replay``, ``check_event_data``

Errors: ``Malformed`` when a file is not in its form, ``Unmeasurable`` when nothing could be started that way.
"""

from enarx.attest._eventlog import (
    Algorithm,
    Event,
    EventLog,
    EventType,
    check_event_data,
    extend,
    parse_cc_event_log,
    parse_ccel_table,
    parse_tpm_event_log,
    replay,
)
from enarx.attest._linux_boot import kernel_digest, patched_kernel
from enarx.attest._pe import authenticode_digest
from enarx.attest._unmeasurable import Unmeasurable
from enarx.attest.amd._cpu import CPU_SIGNATURES, cpu_signature
from enarx.attest.amd._kernel_hashes import KernelHashes, hash_kernel
from enarx.attest.amd._keys import key_digest, load_private_key, pack_key
from enarx.attest.amd._launch import sev_es_launch_digest, sev_launch_digest, vmsa_pages
from enarx.attest.amd._ovmf import Section, SectionKind, SevFirmware, parse_sev_firmware
from enarx.attest.amd._vmsa import GuestFeatures, Vmm
from enarx.attest.sgx._mrenclave import (
    Page,
    PageType,
    Permission,
    enclave_size,
    flat_pages,
    mrenclave,
    sgxs_mrenclave,
)
from enarx.attest.sgx._sigstruct import (
    Sigstruct,
    SigstructRejected,
    build_sigstruct,
    parse_sigstruct,
    verify_sigstruct,
)
from enarx.attest.snp._id_block import (
    IdBlock,
    IdBlockRejected,
    IdKeys,
    build_id_auth,
    parse_id_block,
    verify_id_auth,
)
from enarx.attest.snp._launch import snp_firmware_digest, snp_launch_digest, snp_svsm_launch_digest
from enarx.attest.tdx._mrtd import PageOrder, mrtd
from enarx.attest.tdx._rtmr import kernel_rtmr1, rtmr0, rtmr0_digests, rtmr1, rtmr2, td_hob
from enarx.attest.tdx._tdvf import TdFirmware, TdSection, parse_td_firmware
from enarx.attest.tpm._pcrs import expected_pcrs

__all__ = [
    "CPU_SIGNATURES",
    "Algorithm",
    "Event",
    "EventLog",
    "EventType",
    "GuestFeatures",
    "IdBlock",
    "IdBlockRejected",
    "IdKeys",
    "KernelHashes",
    "Page",
    "PageOrder",
    "PageType",
    "Permission",
    "Section",
    "SectionKind",
    "SevFirmware",
    "Sigstruct",
    "SigstructRejected",
    "TdFirmware",
    "TdSection",
    "Unmeasurable",
    "Vmm",
    "authenticode_digest",
    "build_id_auth",
    "build_sigstruct",
    "check_event_data",
    "cpu_signature",
    "enclave_size",
    "expected_pcrs",
    "extend",
    "flat_pages",
    "hash_kernel",
    "kernel_digest",
    "kernel_rtmr1",
    "key_digest",
    "load_private_key",
    "mrenclave",
    "mrtd",
    "pack_key",
    "parse_cc_event_log",
    "parse_ccel_table",
    "parse_id_block",
    "parse_sev_firmware",
    "parse_sigstruct",
    "parse_td_firmware",
    "parse_tpm_event_log",
    "patched_kernel",
    "replay",
    "rtmr0",
    "rtmr0_digests",
    "rtmr1",
    "rtmr2",
    "sev_es_launch_digest",
    "sev_launch_digest",
    "sgxs_mrenclave",
    "snp_firmware_digest",
    "snp_launch_digest",
    "snp_svsm_launch_digest",
    "td_hob",
    "verify_id_auth",
    "verify_sigstruct",
    "vmsa_pages",
]
