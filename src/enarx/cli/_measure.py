"""``enarx measure``: what evidence must show when exactly these files are started."""

from __future__ import annotations

import base64
import os

import click

from enarx.attest import measure as expected
from enarx.cli._exit import ExitCode
from enarx.cli._main import SETTINGS, json_option
from enarx.cli._measure_inputs import (
    FILE,
    FORMAT,
    KERNEL,
    MEMORY,
    OVMF,
    PATCHED,
    PROCESSOR,
    Inputs,
    about,
    boot,
    give,
    id_options,
    kernel_hashes,
    parse_hex,
    parse_number,
    parse_size,
    patched_for,
    processor,
    sign_id_block,
)
from enarx.cli._output import Output
from enarx.cli._parameter import Parsed


@click.group(context_settings=SETTINGS, no_args_is_help=True)
@json_option
def measure() -> None:
    """Compute what evidence must show when exactly these files are started. Nothing is started.

    \b
    Examples:
      enarx measure snp --ovmf OVMF.amdsev.fd --vcpus 1 --vcpu-type EPYC-v4 --kernel vmlinuz
      enarx measure tdx --ovmf OVMF.fd
      enarx measure sgx --sgxs enclave.sgxs --sigstruct enclave.sig
      enarx measure tpm --kernel vmlinuz --initrd initrd.img --append quiet
    """


@measure.command(context_settings=SETTINGS)
@OVMF
@PROCESSOR
@KERNEL
@click.option(
    "--guest-features",
    type=Parsed("number", parse_number),
    default="0x1",
    show_default=True,
    metavar="N",
    help="SEV_FEATURES of the guest; newer kernels use 0x21.",
)
@click.option(
    "--snp-ovmf-hash",
    type=Parsed("hex", parse_hex),
    metavar="HEX",
    help="Digest of the firmware, as snp-ovmf gives it: only the metadata of --ovmf are read then.",
)
@click.option("--svsm", type=FILE, help="An SVSM that runs beneath the firmware.")
@click.option(
    "--vars-size", type=Parsed("size", parse_size), metavar="SIZE", help="With --svsm: size of the variables."
)
@click.option("--vars-file", type=FILE, help="With --svsm: the file of the variables, for its size.")
@FORMAT
@json_option
@click.pass_obj
def snp(
    output: Output,
    /,
    ovmf: str,
    vcpus: int,
    guest_features: int,
    snp_ovmf_hash: bytes | None,
    svsm: str | None,
    vars_size: int | None,
    vars_file: str | None,
    output_format: str,
    **rest: object,
) -> ExitCode:
    """Give MEASUREMENT of an SEV-SNP report.

    \b
    Examples:
      enarx measure snp --ovmf OVMF.amdsev.fd --vcpus 4 --vcpu-type EPYC-v4
      enarx measure snp --ovmf OVMF.amdsev.fd --vcpus 1 --vcpu-type EPYC-v4 --kernel vmlinuz \\
        --initrd initrd.img --append "quiet loglevel=0"
      enarx measure snp --ovmf OVMF.fd --vcpus 2 --vmm-type ec2
    """
    inputs = Inputs()
    vmm, signature = processor(rest)
    with about(ovmf):
        firmware = expected.parse_sev_firmware(inputs.read("ovmf", ovmf))
    if svsm is None:
        if vars_size is not None or vars_file is not None:
            raise click.UsageError("--vars-size and --vars-file go with --svsm")
        kernel = kernel_hashes(inputs, rest)
        with about(ovmf):
            digest = expected.snp_launch_digest(
                firmware,
                vcpus=vcpus,
                cpu_signature=signature,
                vmm=vmm,
                features=guest_features,
                kernel=kernel,
                firmware_digest=snp_ovmf_hash,
            )
    else:
        if vmm is not expected.Vmm.QEMU or rest["kernel"] or snp_ovmf_hash or guest_features != 1:
            raise click.UsageError(
                "--svsm goes with none of --kernel, --snp-ovmf-hash, --guest-features, --vmm-type"
            )
        if (vars_size is None) == (vars_file is None):
            raise click.UsageError("--svsm needs one of --vars-size and --vars-file")
        below = os.stat(vars_file).st_size if vars_file is not None else vars_size or 0
        with about(svsm):
            module = expected.parse_sev_firmware(inputs.read("svsm", svsm), end=firmware.gpa - below)
            digest = expected.snp_svsm_launch_digest(firmware, module, vcpus=vcpus, cpu_signature=signature)
    return give(output, "snp", {"launch_digest": digest}, inputs, output_format)


@measure.command("snp-ovmf", context_settings=SETTINGS)
@OVMF
@FORMAT
@json_option
@click.pass_obj
def snp_ovmf(output: Output, ovmf: str, output_format: str) -> ExitCode:
    """Give the digest of a firmware image alone, for snp --snp-ovmf-hash.

    \b
    Examples:
      enarx measure snp-ovmf --ovmf OVMF.amdsev.fd
    """
    inputs = Inputs()
    with about(ovmf):
        digest = expected.snp_firmware_digest(expected.parse_sev_firmware(inputs.read("ovmf", ovmf)))
    return give(output, "snp", {"firmware_digest": digest}, inputs, output_format)


@measure.command("sev-es", context_settings=SETTINGS)
@OVMF
@PROCESSOR
@KERNEL
@click.option(
    "--guest-features",
    type=Parsed("number", parse_number),
    default="0",
    show_default=True,
    metavar="N",
    help="SEV_FEATURES.",
)
@FORMAT
@json_option
@click.pass_obj
def sev_es(
    output: Output, /, ovmf: str, vcpus: int, guest_features: int, output_format: str, **rest: object
) -> ExitCode:
    """Give the launch digest of an SEV-ES guest, which LAUNCH_MEASURE covers.

    \b
    Examples:
      enarx measure sev-es --ovmf OVMF.amdsev.fd --vcpus 1 --vcpu-type EPYC-v4 --kernel vmlinuz
    """
    inputs = Inputs()
    vmm, signature = processor(rest)
    with about(ovmf):
        firmware = expected.parse_sev_firmware(inputs.read("ovmf", ovmf))
    kernel = kernel_hashes(inputs, rest)
    with about(ovmf):
        digest = expected.sev_es_launch_digest(
            firmware, vcpus=vcpus, cpu_signature=signature, vmm=vmm, features=guest_features, kernel=kernel
        )
    return give(output, "sev-es", {"launch_digest": digest}, inputs, output_format)


@measure.command(context_settings=SETTINGS)
@OVMF
@KERNEL
@FORMAT
@json_option
@click.pass_obj
def sev(output: Output, /, ovmf: str, output_format: str, **rest: object) -> ExitCode:
    """Give the launch digest of an SEV guest, which LAUNCH_MEASURE covers.

    \b
    Examples:
      enarx measure sev --ovmf OVMF.amdsev.fd --kernel vmlinuz --append quiet
    """
    inputs = Inputs()
    with about(ovmf):
        firmware = expected.parse_sev_firmware(inputs.read("ovmf", ovmf))
    kernel = kernel_hashes(inputs, rest)
    with about(ovmf):
        digest = expected.sev_launch_digest(firmware, kernel=kernel)
    return give(output, "sev", {"launch_digest": digest}, inputs, output_format)


@measure.command("id-block", context_settings=SETTINGS)
@click.option(
    "--measurement", required=True, type=Parsed("hex", parse_hex), metavar="HEX", help="The launch digest."
)
@id_options
@click.option(
    "--policy", type=Parsed("number", parse_number), default="0x30000", show_default=True, metavar="N"
)
@json_option
@click.pass_obj
def id_block(
    output: Output,
    measurement: bytes,
    id_key: str,
    author_key: str | None,
    policy: int,
    family_id: bytes,
    image_id: bytes,
    guest_svn: int,
) -> ExitCode:
    """Sign the ID block of an SEV-SNP guest, as QEMU's sev-snp-guest object takes it.

    \b
    Examples:
      enarx measure id-block --measurement $(enarx measure snp ...) --id-key id.pem
    """
    block = expected.IdBlock(
        launch_digest=measurement, family_id=family_id, image_id=image_id, guest_svn=guest_svn, policy=policy
    )
    auth, digests = sign_id_block(block, id_key, author_key)
    values = {"id-block": base64.b64encode(block.pack()).decode(), "id-auth": base64.b64encode(auth).decode()}
    text = "\n".join(
        [",".join(f"{k}={v}" for k, v in values.items()), *(f"{k} {v}" for k, v in digests.items())]
    )
    output.result("enarx.id-block/1", values | digests, text)
    return ExitCode.DONE


@measure.command(context_settings=SETTINGS)
@click.option("--sgxs", type=FILE, help="The enclave as an SGXS stream.")
@click.option(
    "--image", type=FILE, help="The enclave as pages that lie there from offset 0, all of them measured."
)
@click.option(
    "--tcs", type=click.IntRange(0), multiple=True, metavar="PAGE", help="With --image: a TCS; page 0."
)
@click.option(
    "--size", type=Parsed("size", parse_size), metavar="SIZE", help="With --image: the enclave's size."
)
@click.option("--ssa-frame-pages", type=click.IntRange(1), default=1, show_default=True, metavar="N")
@click.option("--sigstruct", type=FILE, help="Check this SIGSTRUCT, and that it is for this enclave.")
@FORMAT
@json_option
@click.pass_obj
def sgx(
    output: Output,
    sgxs: str | None,
    image: str | None,
    tcs: tuple[int, ...],
    size: int | None,
    ssa_frame_pages: int,
    sigstruct: str | None,
    output_format: str,
) -> ExitCode:
    """Give MRENCLAVE of an enclave, and MRSIGNER of its SIGSTRUCT.

    \b
    Examples:
      enarx measure sgx --sgxs enclave.sgxs
      enarx measure sgx --image enclave.bin --sigstruct enclave.sig
    """
    inputs, values = Inputs(), {}
    if sgxs and image:
        raise click.UsageError("--sgxs and --image exclude each other")
    if sgxs:
        with about(sgxs):
            values["mrenclave"] = expected.sgxs_mrenclave(inputs.read("sgxs", sgxs))
    elif image:
        with about(image):
            data = inputs.read("image", image)
            pages = expected.flat_pages(data, tcs=tcs or (0,))
            total = size or expected.enclave_size(len(data))
            values["mrenclave"] = expected.mrenclave(size=total, pages=pages, ssa_frame_pages=ssa_frame_pages)
    elif not sigstruct:
        raise click.UsageError("one of --sgxs, --image and --sigstruct is needed")
    if sigstruct:
        with about(sigstruct):
            signed = expected.verify_sigstruct(inputs.read("sigstruct", sigstruct))
            if values.setdefault("mrenclave", signed.enclave_hash) != signed.enclave_hash:
                raise expected.SigstructRejected(
                    f"sigstruct: enclave hash is {signed.enclave_hash.hex()}, "
                    f"the enclave has {values['mrenclave'].hex()}"
                )
        values["mrsigner"] = signed.mrsigner
    return give(output, "sgx", values, inputs, output_format)


@measure.command(context_settings=SETTINGS)
@OVMF
@KERNEL
@MEMORY
@PATCHED
@click.option(
    "--acpi",
    type=Parsed("hex", parse_hex),
    multiple=True,
    metavar="HEX",
    help="SHA-384 of an ACPI event of a good boot, in order; RTMR0 needs them and --memory.",
)
@click.option(
    "--page-order",
    type=click.Choice([order.value for order in expected.PageOrder]),
    default="per-page",
    show_default=True,
    help="When pages are measured: per-section before Linux 6.16.",
)
@FORMAT
@json_option
@click.pass_obj
def tdx(
    output: Output,
    /,
    ovmf: str,
    memory: int | None,
    patched_kernel: bool,
    acpi: tuple[bytes, ...],
    page_order: str,
    output_format: str,
    **rest: object,
) -> ExitCode:
    """Give MRTD of a trust domain; RTMR1 and RTMR2 with --kernel; RTMR0 with --memory and --acpi.

    \b
    Examples:
      enarx measure tdx --ovmf OVMF.fd
      enarx measure tdx --ovmf OVMF.fd --kernel vmlinuz --initrd initrd.img --append quiet
    """
    inputs = Inputs()
    with about(ovmf):
        firmware = expected.parse_td_firmware(inputs.read("ovmf", ovmf))
        values = {"mrtd": expected.mrtd(firmware, order=expected.PageOrder(page_order))}
        if acpi:
            if memory is None:
                raise click.UsageError("--acpi needs --memory")
            values["rtmr0"] = expected.rtmr0(firmware, memory_bytes=memory, acpi=acpi)
    if kernel := boot(inputs, rest):
        size = patched_for(memory, patched_kernel)
        with about(inputs.files["kernel"][0]):
            values["rtmr1"] = expected.kernel_rtmr1(
                kernel.kernel, patched_for=size, initrd=kernel.initrd, cmdline=kernel.cmdline
            )
            values["rtmr2"] = expected.rtmr2(cmdline=kernel.cmdline, initrd=kernel.initrd)
    return give(output, "tdx", values, inputs, output_format)


@measure.command(context_settings=SETTINGS)
@KERNEL
@MEMORY
@PATCHED
@click.option(
    "--algorithm",
    type=click.Choice(["sha1", "sha256", "sha384", "sha512"]),
    default="sha256",
    show_default=True,
    help="The bank of PCRs.",
)
@FORMAT
@json_option
@click.pass_obj
def tpm(
    output: Output,
    /,
    memory: int | None,
    patched_kernel: bool,
    algorithm: str,
    output_format: str,
    **rest: object,
) -> ExitCode:
    """Give PCR2 to PCR6 and PCR9 of a machine in which OVMF starts a kernel of QEMU.

    \b
    Examples:
      enarx measure tpm --kernel vmlinuz --initrd initrd.img --append quiet
      enarx measure tpm --kernel vmlinuz --patched-kernel --memory 512M
    """
    inputs = Inputs()
    kernel = boot(inputs, rest)
    if kernel is None:
        raise click.UsageError("--kernel is needed")
    size = patched_for(memory, patched_kernel)
    with about(inputs.files["kernel"][0]):
        pcrs = expected.expected_pcrs(
            kernel.kernel,
            initrd=kernel.initrd,
            cmdline=kernel.cmdline,
            patched_for=size,
            algorithm=expected.Algorithm[algorithm.upper()],
        )
    return give(output, "tpm", {f"pcr{index}": value for index, value in pcrs.items()}, inputs, output_format)


@measure.command("event-log", context_settings=SETTINGS)
@click.argument("log", type=FILE)
@click.option("--cc", is_flag=True, help="The log is the CCEL area of a TDX guest.")
@click.option(
    "--algorithm", type=click.Choice(["sha1", "sha256", "sha384", "sha512"]), help="The bank of PCRs."
)
@FORMAT
@json_option
@click.pass_obj
def event_log(output: Output, log: str, cc: bool, algorithm: str | None, output_format: str) -> ExitCode:
    """Replay a measured-boot event log: give the registers that it leads to.

    \b
    Examples:
      enarx measure event-log /sys/kernel/security/tpm0/binary_bios_measurements
      enarx measure event-log --cc /sys/firmware/acpi/tables/data/CCEL
    """
    inputs = Inputs()
    with about(log):
        data = inputs.read("event_log", log)
        parsed = expected.parse_cc_event_log(data) if cc else expected.parse_tpm_event_log(data)
        bank = expected.Algorithm[algorithm.upper()] if algorithm else parsed.algorithms[-1]
        expected.check_event_data(parsed, bank)
        registers = sorted(expected.replay(parsed, bank).items())
    names = {0: "mrtd", 1: "rtmr0", 2: "rtmr1", 3: "rtmr2", 4: "rtmr3"} if cc else {}
    values = {names.get(index, f"pcr{index}"): value for index, value in registers}
    return give(output, "tdx" if cc else "tpm", values, inputs, output_format)
