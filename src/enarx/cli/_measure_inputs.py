"""What the commands of ``enarx measure`` share: their options, the files these name, the form of their results."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Final, TypeVar

import click

from enarx.attest import measure as expected
from enarx.cli._exit import ExitCode
from enarx.cli._output import Output, printable
from enarx.cli._parameter import Parsed
from enarx.tcb.errors import EnarxError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_Command = TypeVar("_Command", bound=Callable[..., object])
FILE = click.Path(exists=True, dir_okay=False)


@dataclass(slots=True)
class Inputs:
    """The files that were read, so that a result can name them."""

    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def read(self, name: str, path: str) -> bytes:
        """Read the file of the option ``name``."""
        with open(path, "rb") as file:
            data = file.read()
        self.files[name] = (path, data)
        return data

    def optional(self, name: str, path: str | None) -> bytes | None:
        """Read a file that may not be given."""
        return None if path is None else self.read(name, path)

    def document(self) -> dict[str, object]:
        """Describe the files by path and SHA-256."""
        return {
            name: {"path": path, "sha256": hashlib.sha256(data).hexdigest()}
            for name, (path, data) in self.files.items()
        }


@contextmanager
def about(path: str) -> Iterator[None]:
    """Name the file in what goes wrong with it."""
    try:
        yield
    except EnarxError as error:
        raise type(error)(f"{printable(os.fsdecode(path))}: {error}", hint=error.hint) from None


def parse_hex(text: str) -> bytes:
    """Read hexadecimal digits."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise EnarxError(f'expected hexadecimal digits, found "{text}"') from None


def parse_number(text: str) -> int:
    """Read a number, decimal or with 0x."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if value < 0:
        raise EnarxError(f'expected a number such as 33 or 0x21, found "{text}"')
    return value


def parse_size(text: str) -> int:
    """Read bytes with a suffix K, M, G or T, which stand for powers of 1024."""
    shift = {"K": 10, "M": 20, "G": 30, "T": 40}.get(text[-1:].upper(), 0)
    digits = text[:-1] if shift else text
    if not digits.isascii() or not digits.isdecimal() or not 0 < int(digits) << shift <= 1 << 52:
        raise EnarxError(f'expected a size such as 512M or 2G, found "{text}"')
    return int(digits) << shift


def _options(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Put several options on a command, the first one first in its help."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


OVMF = click.option(
    "--ovmf", required=True, type=FILE, help="The firmware image, for example OVMF.amdsev.fd."
)
KERNEL = _options(
    click.option("--kernel", type=FILE, help="The kernel that QEMU gets as -kernel."),
    click.option("--initrd", type=FILE, help="The initial ramdisk that it gets as -initrd."),
    click.option("--append", metavar="TEXT", help="The kernel command line that it gets as -append."),
)
FORMAT = click.option(
    "--output-format",
    type=click.Choice(["hex", "base64"]),
    default="hex",
    show_default=True,
    help="For text output.",
)
PROCESSOR = _options(
    click.option(
        "--vcpus", type=click.IntRange(1), metavar="N", required=True, help="Number of virtual processors."
    ),
    click.option(
        "--vcpu-type",
        type=click.Choice(list(expected.CPU_SIGNATURES)),
        metavar="TYPE",
        help="QEMU's processor model, EPYC to EPYC-Turin, with or without -vN.",
    ),
    click.option(
        "--vcpu-sig",
        type=Parsed("number", parse_number),
        metavar="N",
        help="CPUID signature instead of a type.",
    ),
    click.option("--vcpu-family", type=int, metavar="N", help="With model and stepping instead of a type."),
    click.option("--vcpu-model", type=int, metavar="N"),
    click.option("--vcpu-stepping", type=int, metavar="N"),
    click.option(
        "--vmm-type",
        type=click.Choice([vmm.value for vmm in expected.Vmm], case_sensitive=False),
        default="qemu",
        show_default=True,
        help="What starts the guest.",
    ),
)
MEMORY = click.option(
    "--memory", type=Parsed("size", parse_size), metavar="SIZE", help="The machine's memory: 512M, 2G."
)
PATCHED = click.option(
    "--patched-kernel",
    is_flag=True,
    help="QEMU writes boot parameters into the kernel, as 7.2 does; needs --memory.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """A kernel with all that comes with it."""

    kernel: bytes
    initrd: bytes | None
    cmdline: str


def boot(inputs: Inputs, options: Mapping[str, object]) -> Boot | None:
    """Read what --kernel, --initrd and --append name."""
    kernel, initrd, append = (options[name] for name in ("kernel", "initrd", "append"))
    if not isinstance(kernel, str):
        if initrd is not None or append is not None:
            raise click.UsageError("--initrd and --append go with --kernel")
        return None
    return Boot(
        kernel=inputs.read("kernel", kernel),
        initrd=inputs.read("initrd", initrd) if isinstance(initrd, str) else None,
        cmdline=append if isinstance(append, str) else "",
    )


def kernel_hashes(inputs: Inputs, options: Mapping[str, object]) -> expected.KernelHashes | None:
    """Hash what --kernel, --initrd and --append name."""
    found = boot(inputs, options)
    if found is None:
        return None
    return expected.hash_kernel(found.kernel, initrd=found.initrd or b"", cmdline=found.cmdline)


def patched_for(memory: int | None, patched: bool) -> int | None:
    """Give the size of memory for which QEMU patches the kernel, or nothing when it does not."""
    if patched and memory is None:
        raise click.UsageError("--patched-kernel needs --memory")
    return memory if patched else None


def processor(options: Mapping[str, object]) -> tuple[expected.Vmm, int]:
    """Give the monitor, and the CPUID signature from one of the three ways to name it; only QEMU needs one."""
    vmm = expected.Vmm(str(options["vmm_type"]).lower())
    parts = {name: options[f"vcpu_{name}"] for name in ("family", "model", "stepping")}
    given = {name: value for name, value in parts.items() if isinstance(value, int)}
    kind, signature = options["vcpu_type"], options["vcpu_sig"]
    if sum((kind is not None, signature is not None, bool(given))) > 1:
        raise click.UsageError("--vcpu-type, --vcpu-sig and --vcpu-family exclude each other")
    if given:
        if len(given) != len(parts):
            raise click.UsageError("--vcpu-family, --vcpu-model and --vcpu-stepping go together")
        return vmm, expected.cpu_signature(**given)
    if isinstance(signature, int):
        return vmm, signature
    if isinstance(kind, str):
        return vmm, expected.CPU_SIGNATURES[kind]
    if vmm is expected.Vmm.QEMU:
        raise click.UsageError("--vcpu-type, --vcpu-sig or --vcpu-family is needed")
    return vmm, 0


ID_OPTIONS: Final = (
    click.option("--id-key", required=True, type=FILE, help="PEM of the P-384 key that signs the block."),
    click.option("--author-key", type=FILE, help="PEM of the P-384 key that signs the ID key."),
    click.option(
        "--family-id", type=Parsed("hex", parse_hex), default="00" * 16, metavar="HEX", help="16 bytes; zero."
    ),
    click.option(
        "--image-id", type=Parsed("hex", parse_hex), default="00" * 16, metavar="HEX", help="16 bytes; zero."
    ),
    click.option(
        "--guest-svn", type=Parsed("number", parse_number), default="0", show_default=True, metavar="N"
    ),
)


def id_options(command: _Command) -> _Command:
    """Declare what an ID block says, and who signs it."""
    return reduce(lambda inner, option: option(inner), reversed(ID_OPTIONS), command)


def private_key(path: str) -> EllipticCurvePrivateKey:
    """Read the PEM of an ECC key."""
    with open(path, "rb") as file, about(path):
        return expected.load_private_key(file.read())


def sign_id_block(
    block: expected.IdBlock, id_key: str, author_key: str | None
) -> tuple[bytes, dict[str, str]]:
    """Sign an ID block with the keys in these files; give the authentication, and the digests that a report shows."""
    auth = expected.build_id_auth(block, private_key(id_key), private_key(author_key) if author_key else None)
    keys = expected.verify_id_auth(block.pack(), auth)
    return auth, {
        "id_key_digest": keys.id_key_digest.hex(),
        "author_key_digest": keys.author_key_digest.hex(),
    }


def give(
    output: Output, tee: str, values: Mapping[str, bytes], inputs: Inputs, output_format: str
) -> ExitCode:
    """Print one value alone, several with their names."""
    texts = {
        name: value.hex() if output_format == "hex" else base64.b64encode(value).decode()
        for name, value in values.items()
    }
    document = {
        "tee": tee,
        "measurements": {n: v.hex() for n, v in values.items()},
        "inputs": inputs.document(),
    }
    lines = texts.values() if len(texts) == 1 else [f"{name} {text}" for name, text in texts.items()]
    output.result("enarx.measurement/1", document, "\n".join(lines))
    return ExitCode.DONE
