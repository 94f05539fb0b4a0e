"""``enarx demo``: a tenant and a host in two processes, an attested launch between them, and a sum."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from enarx.api.demo_guest import LARGEST
from enarx.cli._demo_run import Demo, run_demo
from enarx.cli._exit import ExitCode
from enarx.cli._main import SETTINGS, json_option
from enarx.cli._output import Output
from enarx.host.demo.attacks import SevAttack, SgxAttack

SGX_LARGEST: Final = (1 << 32) - 1
_platform_option = click.option(
    "--platform",
    "home",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="The state directory of an emulated platform that runs.  [default: one is started for the demo]",
)
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(context_settings=SETTINGS, no_args_is_help=True)
@json_option
def demo() -> None:
    """Add two numbers in a TEE for a tenant who does not trust the host.

    Tenant and host are two processes, and say what they do. Their machine is EMULATED unless said otherwise.

    \b
    Examples:
      enarx demo sev 2 2
      enarx demo sgx 2 2 --attack replay
    """


@demo.command(context_settings=SETTINGS)
@click.argument("a", type=click.IntRange(0, LARGEST), metavar="A")
@click.argument("b", type=click.IntRange(0, LARGEST), metavar="B")
@click.option(
    "--attack", type=click.Choice([it.value for it in SevAttack]), help="Let the host do this; it is refused."
)
@_platform_option
@click.option("--kvm", default="/dev/kvm", show_default=True, metavar="PATH", help="Where KVM is.")
@click.option(
    "--device", metavar="PATH", help="Use a real secure processor at this device, such as /dev/sev."
)
@click.option(
    "--certificates",
    type=_FILE,
    metavar="FILE",
    help="What AMD published for the real one: CEK, ASK and ARK in a row.",
)
@json_option
@click.pass_obj
def sev(
    output: Output,
    a: int,
    b: int,
    attack: str | None,
    home: Path | None,
    kvm: str,
    device: str | None,
    certificates: Path | None,
) -> ExitCode:
    """Add in a virtual machine whose launch was measured.

    Code and numbers reach the host only encrypted, as the secret of one SEV launch. The guest runs on KVM and prints
    the sum through its serial line; where there is no KVM, its few instructions are interpreted.

    \b
    Examples:
      enarx demo sev 2 2
      enarx demo sev 2 2 --attack measurement
      enarx demo sev 2 2 --device /dev/sev --certificates amd.cert
    """
    if a + b > LARGEST:
        raise click.UsageError(f"A + B is {a + b}, and the guest adds words: at most {LARGEST}")
    if (device is None) != (certificates is None) or (device is not None and home is not None):
        raise click.UsageError("--device and --certificates belong together, and exclude --platform")
    host: dict[str, object] = {"kvm": kvm, "device": device, "certificates": str(certificates or "")}
    return run_demo(
        output, Demo(tee="sev", a=a, b=b, attack=attack, host=host), home, emulated=device is None
    )


@demo.command(context_settings=SETTINGS)
@click.argument("a", type=click.IntRange(0, SGX_LARGEST), metavar="A")
@click.argument("b", type=click.IntRange(0, SGX_LARGEST), metavar="B")
@click.option(
    "--attack", type=click.Choice([it.value for it in SgxAttack]), help="Let the host do this; it is refused."
)
@_platform_option
@json_option
@click.pass_obj
def sgx(output: Output, a: int, b: int, attack: str | None, home: Path | None) -> ExitCode:
    """Add in an enclave whose quote names its code and its key.

    The numbers are encrypted to that key, and the sum to a key of the tenant's.

    \b
    Examples:
      enarx demo sgx 2 2
      enarx demo sgx 2 2 --attack key-swap
    """
    return run_demo(output, Demo(tee="sgx", a=a, b=b, attack=attack), home, emulated=True)
