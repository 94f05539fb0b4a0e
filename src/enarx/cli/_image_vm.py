"""``enarx image build --vm``, and ``enarx image show`` of what it makes."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

from enarx.attest import measure as expected
from enarx.attest.measure import CPU_SIGNATURES, Unmeasurable
from enarx.cli._exit import ExitCode
from enarx.cli._measure_inputs import MEMORY, PATCHED, patched_for
from enarx.cli._output import Output, printable
from enarx.cli._run import default_cache_dir
from enarx.tcb.errors import Malformed, Unavailable

if TYPE_CHECKING:
    from enarx.api.vm_image import VmImage
    from enarx.tenant.image.vm import Machine

DEFAULT_VM: Final = "enarx-vm"
_Command = TypeVar("_Command", bound=Callable[..., object])
_MACHINE: Final = (
    click.option(
        "--vcpus",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        metavar="N",
        help="Of a VM image: virtual processors of the machine.",
    ),
    click.option(
        "--vcpu-type",
        type=click.Choice(list(CPU_SIGNATURES)),
        default="EPYC-v4",
        show_default=True,
        metavar="TYPE",
        help="Of a VM image: QEMU's processor model.",
    ),
    MEMORY,
    PATCHED,
)
_BUILD: Final = (
    click.option("--vm", is_flag=True, help="Build the image of VM keeps: a directory."),
    click.option(
        "--console",
        is_flag=True,
        help="With --vm: let the kernel write to a serial line, which the host reads. Measured differently.",
    ),
    click.option(
        "--firmware/--no-firmware",
        default=True,
        help="With --vm: put OVMF into the image, without which it cannot be attested.",
    ),
    click.option(
        "--mirror",
        "mirrors",
        multiple=True,
        metavar="URL",
        help="With --vm: a Debian mirror, instead of those of apt's configuration.",
    ),
)


def processor_options(command: _Command) -> _Command:
    """Declare the processors of a machine."""
    return _decorated(command, _MACHINE[:2])


def machine_options(command: _Command) -> _Command:
    """Declare what of a machine is measured beside its image."""
    return _decorated(command, _MACHINE)


def build_options(command: _Command) -> _Command:
    """Declare what can be chosen of a VM image."""
    return _decorated(command, _BUILD)


def build_vm(output: Output, out: Path, *, console: bool, firmware: bool, mirrors: Sequence[str]) -> ExitCode:
    """Build an image and describe it."""
    from enarx.tenant.image.vm import Cache, Machine, Options, build_vm_image

    signal.signal(
        signal.SIGTERM, lambda number, frame: sys.exit(ExitCode.STOPPED)
    )  # half an image is removed
    cache = Cache(Path(default_cache_dir(), "vm"), mirrors=mirrors, tell=output.note)
    options = Options(console=console, firmware=firmware)
    built = build_vm_image(out, cache, options=options, tell=output.note)
    return _give(output, out, built, Machine())


def show_vm(
    output: Output, directory: Path, *, vcpus: int, vcpu_type: str, memory: int | None, patched_kernel: bool
) -> ExitCode:
    """Describe an image, and what evidence must show on a machine that was started from it."""
    from enarx.tenant.image.vm import Machine, read_vm_image

    machine = Machine(vcpus=vcpus, vcpu_type=vcpu_type, patched_for=patched_for(memory, patched_kernel))
    return _give(output, directory, read_vm_image(directory), machine)


def sign_vm(
    output: Output,
    directory: Path,
    *,
    id_key: str,
    author_key: str | None,
    family_id: bytes,
    image_id: bytes,
    guest_svn: int,
    vcpus: int,
    vcpu_type: str,
) -> ExitCode:
    """Sign an ID block for an image, and put it beside the image."""
    from enarx.api.vm_image import SNP_POLICY, write_snp_identity
    from enarx.attest.claims import Tee
    from enarx.cli._measure_inputs import sign_id_block
    from enarx.tenant.image.vm import Machine, Measurements, read_vm_image

    image, machine = read_vm_image(directory), Machine(vcpus=vcpus, vcpu_type=vcpu_type)
    if image.console:
        hint = "whoever accepts your signature would accept it; build the image without --console"
        raise Unavailable(
            f"{directory}: its kernel writes to a console, which the host would read", hint=hint
        )
    digest = Measurements(image).launch_digest(Tee.SNP, machine)
    block = expected.IdBlock(
        launch_digest=digest, family_id=family_id, image_id=image_id, guest_svn=guest_svn, policy=SNP_POLICY
    )
    auth, digests = sign_id_block(block, id_key, author_key)
    write_snp_identity(directory, block.pack(), auth)
    text = "\n".join(f"{name} {value}" for name, value in digests.items())
    output.result("enarx.vm-image-signed/1", {"path": str(directory), **digests}, text)
    return ExitCode.DONE


def _give(output: Output, directory: Path, image: VmImage, machine: Machine) -> ExitCode:
    listed = _listed(directory)
    values, unmeasured = _measurements(image, machine)
    sizes = {path.name: path.stat().st_size for path in sorted(directory.iterdir())}
    document = {
        "path": str(directory),
        "sha256": image.digest.hex(),
        "cmdline": image.cmdline,
        "console": image.console,
        "bytes": sizes,
        "machine": {
            "vcpus": machine.vcpus,
            "vcpu_type": machine.vcpu_type,
            "patched_for": machine.patched_for,
        },
        "measurements": values,
        "unmeasured": unmeasured,
        "archives": listed["archives"],
        "files": [*listed["beside"], *listed["initrd"]],
    }
    lines = [
        f"image    sha256:{image.digest.hex()}",
        f"cmdline  {image.cmdline}",
        f"files    {len(listed['initrd'])} in the initrd, from {len(listed['archives'])} archives and this release",
        *(f"{name:<12} {size:>10} bytes" for name, size in sizes.items()),
        f"measured with {machine.vcpus} vcpu of type {machine.vcpu_type}:",
        *(f"{tee:<8} {name:<14} {value}" for tee, found in values.items() for name, value in found.items()),
        *(f"{tee:<8} not measured: {reason}" for tee, reason in unmeasured.items()),
    ]
    if image.console:
        lines.append("the host reads the console of this image: use it to find faults only")
    output.result("enarx.vm-image/1", document, printable("\n".join(lines)))
    return ExitCode.DONE


def _listed(directory: Path) -> dict[str, list[object]]:
    """Read what the image says of its files, which anybody may have written. Raises ``Malformed``."""
    from enarx.api.vm_image import FILES

    try:
        listed = json.loads((directory / FILES).read_bytes())
    except (ValueError, RecursionError):
        listed = None
    if not isinstance(listed, dict) or not all(
        isinstance(listed.get(name), list) for name in ("initrd", "beside", "archives")
    ):
        raise Malformed(f"{directory / FILES}: no list of an image's files", hint="build it anew")
    return listed


def _measurements(image: VmImage, machine: Machine) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Give all values; and of kinds for which there are none, for want of firmware for example, the reason."""
    from enarx.tenant.image.vm import VM_TEES, Measurements

    measurements = Measurements(image)
    found: dict[str, dict[str, str]] = {}
    reasons: dict[str, str] = {}
    for tee in VM_TEES:
        try:
            values = measurements.of(tee, machine)
        except Unmeasurable as error:
            reasons[tee.value] = str(error)
            continue
        found[tee.value] = {name: value.hex() for name, value in values.items()}
    return found, reasons


def _decorated(command: _Command, options: Sequence[Callable[[_Command], _Command]]) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command
