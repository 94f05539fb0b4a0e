"""The program ``enarx-emulator``: translate arguments, call, print.

Exit codes are those of ``enarx``: 0 done, 1 refused, 2 usage, 3 malformed, 4 unavailable, 130 interrupted.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import click

from enarx.tcb.errors import EnarxError, Malformed, Unavailable
from enarx_emulator import __version__
from enarx_emulator.kinds import KINDS

SETTINGS: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
DIRECTORY: Final = click.Path(file_okay=False, path_type=Path)
json_option = click.option("--json", "as_json", is_flag=True, help="Give one JSON document instead of text.")
hardware_option = click.option(
    "--beside-real-hardware", is_flag=True, help="Go on although this machine has a real TEE."
)
state_option = click.option(
    "--state", type=DIRECTORY, required=True, metavar="DIR", help="The machine's own directory."
)


@click.group(context_settings=SETTINGS)
@click.version_option(__version__, "-V", "--version", message="enarx-emulator %(version)s")
def cli() -> None:
    """EMULATED trusted execution environments, for development and tests. They protect nothing.

    \b
    Examples:
      enarx-emulator start snp --state machine    run a machine
      enarx-emulator info --state machine         ask it who it is
      enarx-emulator evidence snp --state machine --image FILE --report-data HEX --out DIR
      enarx-emulator vendor serve --vendor DIR    answer as its vendor
      enarx-emulator faults                       list the ways of being wrong

    Results go to standard output, everything else to standard error.
    """


@cli.command()
@click.argument("kind", type=click.Choice(KINDS))
@state_option
@click.option("--product", help="Which processor; milan, genoa or turin for AMD.  [default: the usual one]")
@click.option("--seed", metavar="HEX", help="Make the machine from this seed.  [default: random]")
@click.option(
    "--vendor", type=DIRECTORY, metavar="DIR", help="The vendor's directory.  [default: DIR/vendor]"
)
@click.option(
    "--fault", "faults", multiple=True, metavar="NAME", help="Be wrong in this way; may be repeated."
)
@click.option(
    "--vcpus",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="Processors of the virtual machines that it launches, which SEV-ES and SNP measure.",
)
@hardware_option
@json_option
def start(
    *,
    kind: str,
    state: Path,
    product: str | None,
    seed: str | None,
    vendor: Path | None,
    faults: tuple[str, ...],
    vcpus: int,
    beside_real_hardware: bool,
    as_json: bool,
) -> None:
    """Run an emulated machine until it is terminated.

    It is made when DIR holds none yet, and the same ever after. Hosts command it at DIR/host.sock.
    """
    gc.disable()  # nothing of what is loaded now is garbage; looking for some takes a tenth of the start
    from enarx_emulator.hardware import refuse_beside_real_hardware
    from enarx_emulator.identity import Identity
    from enarx_emulator.process import SOCKET, Process
    from enarx_emulator.state import Directory

    if not beside_real_hardware:
        refuse_beside_real_hardware()
    directory = Directory(state)
    with directory.owned():
        identity = Identity(
            directory,
            vendor=Directory(vendor or state / "vendor"),
            kind=kind,
            product=product,
            seed=None if seed is None else _hex("--seed", seed),
            faults=frozenset(faults),
        )
        process = Process(identity, state, vcpus=vcpus)
        gc.freeze()
        gc.enable()
        document = {"kind": kind, "emulated": True, "socket": str(state / SOCKET), "faults": sorted(faults)}
        text = f"EMULATED {kind} listens at {state / SOCKET}"
        _result(as_json, "enarx-emulator.started/1", document, text)
        process.serve()


@cli.command()
@click.argument("kind", type=click.Choice(("snp", "sgx", "tdx")))
@state_option
@click.option("--image", type=click.File("rb"), required=True, metavar="FILE", help="What the guest runs.")
@click.option("--report-data", required=True, metavar="HEX", help="What the evidence is bound to; 64 bytes.")
@click.option(
    "--out", type=DIRECTORY, required=True, metavar="DIR", help="Where to write evidence.bin and root.pem."
)
@click.option("--product", help="Which processor.  [default: the usual one]")
@click.option("--vendor", "vendor_home", type=DIRECTORY, metavar="DIR", help="As for start.")
@click.option(
    "--fault", "faults", multiple=True, metavar="NAME", help="Be wrong in this way; may be repeated."
)
@hardware_option
@json_option
def evidence(
    *,
    kind: str,
    state: Path,
    image: IO[bytes],
    report_data: str,
    out: Path,
    product: str | None,
    vendor_home: Path | None,
    faults: tuple[str, ...],
    beside_real_hardware: bool,
    as_json: bool,
) -> None:
    """Make one piece of evidence: launch FILE on the machine in the --state directory, which must not be running."""
    from enarx_emulator.hardware import refuse_beside_real_hardware
    from enarx_emulator.identity import Identity
    from enarx_emulator.sample import make_sample
    from enarx_emulator.state import Directory

    if not beside_real_hardware:
        refuse_beside_real_hardware()
    directory = Directory(state)
    with directory.owned():
        identity = Identity(
            directory,
            vendor=Directory(vendor_home or state / "vendor"),
            kind=kind,
            product=product,
            faults=frozenset(faults),
        )
        sample = make_sample(identity.machine, image.read(), _hex("--report-data", report_data))
        identity.keep()
    out.mkdir(parents=True, exist_ok=True)
    (out / "evidence.bin").write_bytes(sample.evidence)
    (out / "root.pem").write_bytes(b"".join(sample.roots))
    document = {"kind": kind, "emulated": True, "measurement": sample.measurement.hex(), "out": str(out)}
    text = f"EMULATED {kind} evidence in {out}\nmeasurement {sample.measurement.hex()}"
    _result(as_json, "enarx-emulator.evidence/1", document, text)


@cli.command()
@state_option
@json_option
def info(*, state: Path, as_json: bool) -> None:
    """Ask a running machine who it is."""
    from enarx_emulator.client import Platform

    with Platform(state) as platform:
        found = {name: _shown(value) for name, value in platform.command("info").items()}
    text = "\n".join(f"{name}: {_spoken(value)}" for name, value in found.items())
    _result(as_json, "enarx-emulator.info/1", found, text)


@cli.command()
@state_option
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="FILE", help="Where to."
)
@json_option
def root(*, state: Path, out: Path, as_json: bool) -> None:
    """Write what a tenant must name to trust a running machine: its vendor's root, or for PEF its own key."""
    from enarx_emulator.client import Platform

    with Platform(state) as platform:
        info = platform.command("info")
    found, kind = info["roots"] or [info["machine_key"]], str(info["kind"])
    if not isinstance(found, list):
        raise Malformed("the machine tells no list of roots")
    out.write_bytes(b"".join(it for it in found if isinstance(it, bytes)))
    text = f"EMULATED root of {kind} in {out}: whoever trusts it trusts no hardware"
    _result(as_json, "enarx-emulator.root/1", {"kind": kind, "path": str(out)}, text)


@cli.command()
@click.option("--kind", type=click.Choice(KINDS), help="Only those that this kind of machine can have.")
@json_option
def faults(*, kind: str | None, as_json: bool) -> None:
    """List every named way of being wrong, and the check that catches it."""
    from enarx_emulator.faults import registry

    found = [fault for _, fault in sorted(registry().items()) if kind is None or kind in fault.kinds]
    document = {
        "faults": [
            {"name": it.name, "kinds": [*it.kinds], "effect": it.effect, "caught_by": it.caught_by}
            for it in found
        ]
    }
    width = max((len(fault.name) for fault in found), default=0)
    text = "\n".join(f"{fault.name:{width}}  {fault.effect} [{fault.caught_by}]" for fault in found)
    _result(as_json, "enarx-emulator.faults/1", document, text)


@cli.group()
def vendor() -> None:
    """Play the vendor who endorses emulated machines."""


@vendor.command()
@click.option(
    "--vendor", "home", type=DIRECTORY, required=True, metavar="DIR", help="The vendor's directory."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Where to listen.  [default: any]")
@click.option(
    "--fault", "faults", multiple=True, metavar="NAME", help="Be wrong in this way; may be repeated."
)
@json_option
def serve(*, home: Path, port: int, faults: tuple[str, ...], as_json: bool) -> None:
    """Answer as AMD's KDS and Intel's PCS on the loopback interface, until terminated."""
    import signal

    from enarx_emulator.faults import registry
    from enarx_emulator.state import Directory
    from enarx_emulator.vendor_server import VendorServer
    from enarx_emulator.vendor_services import VendorServices

    if unknown := sorted(set(faults) - registry().keys()):
        raise click.UsageError(f"{', '.join(unknown)} is no fault")
    server = VendorServer(VendorServices(Directory(home), faults=frozenset(faults)), port=port)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _result(
        as_json, "enarx-emulator.vendor/1", {"url": server.url}, f"EMULATED vendors answer at {server.url}"
    )
    try:
        server.serve_forever(poll_interval=60)
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


@vendor.command()
@click.option("--url", required=True, help="Where the vendors answer.")
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...")
@json_option
def event(*, url: str, name: str, arguments: tuple[str, ...], as_json: bool) -> None:
    """Let something happen to the vendors.

    \b
    outage service=kds|pcs|all kind=none|refuse|limit|garbage|hang|cut
    clock now=2030-01-01T00:00:00Z|real
    faults names="NAME NAME"
    revoke-amd-authority product=Milan authority=ask|asvk
    revoke-intel-certificate serial=HEX
    recover-intel-tcb fmspc=HEX cpu_svn=HEX pce_svn=N tee_tcb_svn=HEX older=STATUS
    recover-intel-tcb enclave=QE|TD_QE|QVE isv_svn=N
    """
    import http.client

    from enarx_emulator.vendor_server import OWN

    pairs = dict(argument.partition("=")[::2] for argument in arguments)
    host = url.removeprefix("http://")
    if not host.startswith("127.0.0.1:"):
        raise click.UsageError("--url is not http://127.0.0.1:PORT")
    connection = http.client.HTTPConnection(host, timeout=60)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"{OWN}event/{name}", json.dumps(pairs), headers)
        response = connection.getresponse()
        state = json.load(response)
    except (OSError, http.client.HTTPException, ValueError):
        raise Unavailable(f"no vendors answer at {url}", hint="enarx-emulator vendor serve") from None
    finally:
        connection.close()
    if response.status != 200:
        raise Malformed(str(state.get("error")))
    text = "\n".join(f"{key}: {value}" for key, value in state.items())
    _result(as_json, "enarx-emulator.vendor-state/1", state, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    try:
        code = cli.main(arguments, prog_name="enarx-emulator", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return 2
    except click.UsageError as error:
        return _failed(2, error.format_message().rstrip("."), "enarx-emulator --help shows how it is used")
    except (KeyboardInterrupt, click.Abort):
        return 130
    except EnarxError as error:
        code = 3 if isinstance(error, Malformed) else 4 if isinstance(error, Unavailable) else 1
        return _failed(code, str(error), error.hint)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(4, f"{where}{(error.strerror or type(error).__name__).lower()}")
    finally:
        gc.enable()
    return code if isinstance(code, int) else 0


def _result(as_json: bool, schema: str, document: Mapping[str, object], text: str) -> None:
    print(json.dumps({"schema": schema, **document}) if as_json else text, flush=True)


def _failed(code: int, message: str, hint: str = "") -> int:
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in message)
    print(f"enarx-emulator: error: {shown}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    return code


def _hex(option: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise click.UsageError(f"{option} is not hex") from None


def _shown(value: object) -> object:
    """Bytes as what they are: PEM as text, all else in hex."""
    if isinstance(value, bytes):
        return value.decode() if value.startswith(b"-----BEGIN ") else value.hex()
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return {name: _shown(item) for name, item in value.items()} if isinstance(value, dict) else value


def _spoken(value: object) -> object:
    """Several roots one below the other, so that whoever reads them can copy one."""
    return "".join(f"\n{item}" for item in value) if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
