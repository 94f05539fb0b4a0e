"""The host's commands by name: first every argument is taken, then nothing may be left, then the firmware acts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from enarx.tcb.wire import Value
from enarx_emulator.amd.chip import Firmware
from enarx_emulator.amd.sev import SevFirmware
from enarx_emulator.amd.snp import SnpFirmware
from enarx_emulator.amd.status import SevStatus, refuse, require
from enarx_emulator.arguments import Arguments

Action = Callable[[], Mapping[str, Value]]
Prepare = Callable[[Arguments], Action]
"""Takes the arguments and gives what is to be done."""

_DIGITS: Final = 256


def run(commands: Mapping[str, Prepare], name: str, arguments: Mapping[str, object]) -> Mapping[str, Value]:
    """Run one. Raises ``FirmwareError`` (INVALID_COMMAND for a name that is unknown), ``Malformed``."""
    prepare = commands.get(name)
    if prepare is None:
        raise refuse(SevStatus.INVALID_COMMAND, f"no command is called {name!r}")
    given = Arguments(name, arguments)
    action = prepare(given)
    given.end()
    return action()


def done(act: Callable[[], None]) -> Action:
    """An action that answers nothing."""

    def action() -> Mapping[str, Value]:
        act()
        return {}

    return action


def snp_commands(firmware: SnpFirmware) -> dict[str, Prepare]:
    """Those of SNP, named as in the specification without the prefix."""
    return {
        "platform_status": lambda _: firmware.platform_status,
        "config": lambda given: _config(firmware, given),
        "commit": lambda _: done(firmware.commit),
        "download_firmware": lambda given: _download_snp(firmware, given),
        "df_flush": lambda _: done(firmware.df_flush),
        "gctx_create": lambda _: lambda: {"guest": firmware.gctx_create()},
        "launch_start": lambda given: _snp_start(firmware, given),
        "activate": lambda given: _activate(firmware, given),
        "launch_update": lambda given: _snp_update(firmware, given),
        "launch_finish": lambda given: snp_finish(firmware, given.number("guest"), given),
        "guest_status": lambda given: _status(firmware, given),
        "decommission": lambda given: _decommission(firmware, given),
        "guest_request": lambda given: _guest_request(firmware, given),
        "dbg_decrypt": lambda given: _snp_decrypt(firmware, given),
        "dbg_encrypt": lambda given: _snp_encrypt(firmware, given),
    }


def sev_commands(firmware: SevFirmware) -> dict[str, Prepare]:
    """Those of SEV and SEV-ES."""
    return {
        "init": lambda given: _init(firmware, given),
        "shutdown": lambda _: done(firmware.shutdown),
        "platform_reset": lambda _: done(firmware.platform_reset),
        "platform_status": lambda _: firmware.platform_status,
        "get_id": lambda _: lambda: {"id": firmware.get_id()},
        "pek_gen": lambda _: done(firmware.pek_gen),
        "pdh_gen": lambda _: done(firmware.pdh_gen),
        "pek_csr": lambda _: lambda: {"pek": firmware.pek_csr()},
        "pek_cert_import": lambda given: _import(firmware, given),
        "pdh_cert_export": lambda _: lambda: _export(firmware),
        "df_flush": lambda _: done(firmware.df_flush),
        "download_firmware": lambda given: _download_sev(firmware, given),
        "launch_start": lambda given: sev_start(firmware, given),
        "activate": lambda given: _activate(firmware, given),
        "deactivate": lambda given: _deactivate(firmware, given),
        "decommission": lambda given: _decommission(firmware, given),
        "guest_status": lambda given: _status(firmware, given),
        "launch_update_data": lambda given: _sev_update(firmware, given),
        "launch_update_vmsa": lambda given: _vmsa(firmware, given),
        "launch_measure": lambda given: _measure(firmware, given),
        "launch_secret": lambda given: _secret(firmware, given),
        "launch_finish": lambda given: _sev_finish(firmware, given),
        "dbg_decrypt": lambda given: _sev_decrypt(firmware, given),
        "dbg_encrypt": lambda given: _sev_encrypt(firmware, given),
    }


def _activate(firmware: SnpFirmware | SevFirmware, given: Arguments) -> Action:
    handle, asid = given.number("guest"), given.number("asid")
    return done(lambda: firmware.activate(handle, asid))


def _status(firmware: SnpFirmware | SevFirmware, given: Arguments) -> Action:
    handle = given.number("guest")
    return lambda: firmware.guest_status(handle)


def _decommission(firmware: SnpFirmware | SevFirmware, given: Arguments) -> Action:
    handle = given.number("guest")
    return done(lambda: firmware.decommission(handle))


# SNP


def _config(firmware: SnpFirmware, given: Arguments) -> Action:
    tcb = given.data("reported_tcb", bytes(8))
    hide_id, hide_key = given.flag("mask_chip_id", False), given.flag("mask_chip_key", False)
    return done(lambda: firmware.config(reported_tcb=tcb, mask_chip_id=hide_id, mask_chip_key=hide_key))


def _download_snp(firmware: SnpFirmware, given: Arguments) -> Action:
    major, minor, build = (given.number(name, below=_DIGITS) for name in ("major", "minor", "build"))
    tcb, commit = given.data("tcb"), given.flag("commit", False)
    require(len(tcb) == 8, SevStatus.INVALID_LENGTH, f"tcb has {len(tcb)} bytes, expected 8")
    new = Firmware(version=(major, minor, build), tcb=firmware.chip.parse(tcb))
    return done(lambda: firmware.download_firmware_ex(new, commit=commit))


def _snp_start(firmware: SnpFirmware, given: Arguments) -> Action:
    handle, policy, gosvw = given.number("guest"), given.number("policy"), given.data("gosvw", bytes(16))
    agent = given.number("migration_agent") if "migration_agent" in given else None
    return done(lambda: firmware.launch_start(handle, policy, gosvw=gosvw, migration_agent=agent))


def _snp_update(firmware: SnpFirmware, given: Arguments) -> Action:
    handle, kind, gpa = given.number("guest"), given.number("page_type"), given.number("gpa")
    page = given.data("page")
    one, two, three = (given.number(f"vmpl{level}_perms", 0) for level in (1, 2, 3))
    return done(lambda: firmware.launch_update(handle, kind, gpa, page, vmpl_perms=(one, two, three)))


def snp_finish(firmware: SnpFirmware, handle: int, given: Arguments) -> Action:
    """SNP_LAUNCH_FINISH of a guest, with all that an owner may have given."""
    block = given.data("id_block") if "id_block" in given else None
    auth = given.data("id_auth") if "id_auth" in given else None
    author, without_vcek = given.flag("auth_key_en", False), given.flag("vcek_dis", False)
    host_data = given.data("host_data", bytes(32))

    def action() -> Mapping[str, Value]:
        firmware.launch_finish(
            handle,
            id_block=block,
            id_auth=auth,
            auth_key_en=author,
            vcek_dis=without_vcek,
            host_data=host_data,
        )
        return {"guest": handle, "measurement": firmware.running(handle).measurement}

    return action


def _guest_request(firmware: SnpFirmware, given: Arguments) -> Action:
    handle, message = given.number("guest"), given.data("message")
    return lambda: {"message": firmware.guest_request(handle, message)}


def _snp_decrypt(firmware: SnpFirmware, given: Arguments) -> Action:
    handle, gpa = given.number("guest"), given.number("gpa")
    return lambda: {"page": firmware.dbg_decrypt(handle, gpa)}


def _snp_encrypt(firmware: SnpFirmware, given: Arguments) -> Action:
    handle, gpa, page = given.number("guest"), given.number("gpa"), given.data("page")
    return done(lambda: firmware.dbg_encrypt(handle, gpa, page))


# SEV and SEV-ES


def _init(firmware: SevFirmware, given: Arguments) -> Action:
    es = given.flag("es", False)
    return done(lambda: firmware.init(es=es))


def _import(firmware: SevFirmware, given: Arguments) -> Action:
    pek, oca = given.data("pek"), given.data("oca")
    return done(lambda: firmware.pek_cert_import(pek, oca))


def _export(firmware: SevFirmware) -> Mapping[str, Value]:
    pdh, chain = firmware.pdh_cert_export()
    return {"pdh": pdh, "cert_chain": chain}


def _download_sev(firmware: SevFirmware, given: Arguments) -> Action:
    major, minor, build = (given.number(name, below=_DIGITS) for name in ("major", "minor", "build"))
    return done(lambda: firmware.download_firmware((major, minor), build))


def sev_start(firmware: SevFirmware, given: Arguments) -> Action:
    """LAUNCH_START with what a guest's owner sent."""
    policy, share = given.data("policy"), given.number("share", 0)
    certificate = given.data("certificate") if "certificate" in given else None
    session = given.data("session") if "session" in given else None
    return lambda: {
        "guest": firmware.launch_start(policy, certificate=certificate, session=session, share=share)
    }


def _deactivate(firmware: SevFirmware, given: Arguments) -> Action:
    handle = given.number("guest")
    return done(lambda: firmware.deactivate(handle))


def _sev_update(firmware: SevFirmware, given: Arguments) -> Action:
    handle, address, data = given.number("guest"), given.number("address"), given.data("data")
    return done(lambda: firmware.launch_update_data(handle, address, data))


def _vmsa(firmware: SevFirmware, given: Arguments) -> Action:
    handle, vmsa = given.number("guest"), given.data("vmsa")
    return done(lambda: firmware.launch_update_vmsa(handle, vmsa))


def _measure(firmware: SevFirmware, given: Arguments) -> Action:
    handle = given.number("guest")
    return lambda: {"measure": firmware.launch_measure(handle)}


def _secret(firmware: SevFirmware, given: Arguments) -> Action:
    handle, header, payload = given.number("guest"), given.data("header"), given.data("payload")
    where, size = given.number("address"), given.number("size", len(payload))
    return done(
        lambda: firmware.launch_secret(handle, header=header, payload=payload, address=where, size=size)
    )


def _sev_finish(firmware: SevFirmware, given: Arguments) -> Action:
    handle = given.number("guest")
    return done(lambda: firmware.launch_finish(handle))


def _sev_decrypt(firmware: SevFirmware, given: Arguments) -> Action:
    handle, address, size = (
        given.number("guest"),
        given.number("address"),
        given.number("size", below=1 << 26),
    )
    return lambda: {"data": firmware.dbg_decrypt(handle, address, size)}


def _sev_encrypt(firmware: SevFirmware, given: Arguments) -> Action:
    handle, address, data = given.number("guest"), given.number("address"), given.data("data")
    return done(lambda: firmware.dbg_encrypt(handle, address, data))
