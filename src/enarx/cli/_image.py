"""``enarx image``: what keeps are started from, as a file that is the same wherever it is built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from enarx.cli._exit import ExitCode
from enarx.cli._image_vm import (
    DEFAULT_VM,
    build_options,
    build_vm,
    machine_options,
    processor_options,
    show_vm,
    sign_vm,
)
from enarx.cli._main import SETTINGS, json_option
from enarx.cli._measure_inputs import id_options
from enarx.cli._output import Output, printable
from enarx.cli._run import default_cache_dir
from enarx.tcb.errors import EnarxError

if TYPE_CHECKING:
    from enarx.api.keep_image import Image

DEFAULT: Final = "enarx-keep.tar"


@click.group(context_settings=SETTINGS, no_args_is_help=True)
@json_option
def image() -> None:
    """Build the keep image, and see what evidence of each TEE must show when it runs.

    \b
    Examples:
      enarx image build
      enarx image show
      enarx image sign enarx-vm --id-key id.pem
    """


@image.command(context_settings=SETTINGS)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help=f"Where to put it.  [default: {DEFAULT}, {DEFAULT_VM} with --vm]",
)
@build_options
@json_option
@click.pass_obj
def build(
    output: Output, out: Path | None, vm: bool, console: bool, firmware: bool, mirrors: tuple[str, ...]
) -> ExitCode:
    """Write the image of this installation: the same bytes from the same release, wherever it is built.

    \b
    Examples:
      enarx image build
      enarx image build --out /srv/enarx/keep.tar
      enarx image build --vm --out /srv/enarx/vm
    """
    if vm:
        place = out or Path(DEFAULT_VM)
        return build_vm(output, place, console=console, firmware=firmware, mirrors=mirrors)
    if console or mirrors or not firmware:
        raise click.UsageError("--console, --no-firmware and --mirror go with --vm")
    out = out or Path(DEFAULT)
    from enarx.tenant.image import build_image

    built = build_image(out)
    output.result("enarx.image/1", {"path": str(out), **document_of(built)}, text_of(built))
    return ExitCode.DONE


@image.command(context_settings=SETTINGS)
@click.argument("file", required=False, type=click.Path(exists=True, path_type=Path))
@machine_options
@json_option
@click.pass_obj
def show(
    output: Output, file: Path | None, vcpus: int, vcpu_type: str, memory: int | None, patched_kernel: bool
) -> ExitCode:
    """Show digest, size, files and reference measurements of FILE, or of what this installation would build.

    A directory is an image of VM keeps.

    \b
    Examples:
      enarx image show
      enarx image show enarx-keep.tar --json
      enarx image show enarx-vm --vcpus 2 --vcpu-type EPYC-Genoa
    """
    if file is not None and file.is_dir():
        return show_vm(
            output, file, vcpus=vcpus, vcpu_type=vcpu_type, memory=memory, patched_kernel=patched_kernel
        )
    from enarx.tenant.image import installed_image, read_image

    found = installed_image() if file is None else read_image(file)
    path = {} if file is None else {"path": str(file)}
    output.result("enarx.image/1", {**path, **document_of(found)}, text_of(found))
    return ExitCode.DONE


@image.command(context_settings=SETTINGS)
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@id_options
@processor_options
@json_option
@click.pass_obj
def sign(output: Output, /, directory: Path, **options: Any) -> ExitCode:
    """Sign the VM image in DIRECTORY for SEV-SNP with your key, as an ID block that lies beside it.

    The platform then launches nothing else by this block, and evidence names your key, the image's number and its
    security version, so that a policy can accept your images instead of one measurement. The image stays the same.

    \b
    Examples:
      openssl ecparam -name secp384r1 -genkey -noout -out id.pem
      enarx image sign enarx-vm --id-key id.pem --guest-svn 3
    """
    return sign_vm(output, directory, **options)


def document_of(found: Image) -> dict[str, object]:
    """Give everything that is known of an image."""
    return {
        "sha256": found.digest.hex(),
        "bytes": found.size,
        "files": [{"path": path, "sha256": digest} for digest, path in _files(found)],
        "measurements": _measurements(found),
    }


def text_of(found: Image) -> str:
    """Give the same for people, without the files' names."""
    lines = [
        f"image    sha256:{found.digest.hex()}",
        f"files    {len(_files(found))}, {found.size} bytes",
        *(f"{tee:<8} {value}" for tee, value in _measurements(found).items()),
    ]
    return printable("\n".join(lines))


def _files(found: Image) -> list[tuple[str, str]]:
    lines = found.manifest.decode().splitlines()
    return [(digest, path) for digest, _, path in (line.partition("  ") for line in lines)]


def _measurements(found: Image) -> dict[str, str]:
    from enarx.tenant.image import MEASURED, reference_measurement

    return {tee.value: reference_measurement(found, tee).hex() for tee in MEASURED}


def cached_image() -> Path:
    """Give the image of this installation as a file: built now, or the one in the cache, read and compared."""
    from enarx.tenant.image import build_image, installed_image, read_image

    wanted = installed_image().digest
    path = Path(default_cache_dir(), "images", f"{wanted.hex()}.tar")
    try:
        if read_image(path).digest == wanted:
            return path
    except EnarxError:
        pass  # there is none yet, or it is damaged
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    build_image(path)
    return path
