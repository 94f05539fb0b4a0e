"""What a host launched instead of the image that its tenant expects, named where evidence is genuine and of another.

A measurement is a hash and names nothing; but the tenant can compute what other launches would show. What the host
says of its image is one more of them: it counts as far as the measurement confirms it. All this changes the words of
a refusal, and never a refusal.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from enarx.api.agent import HostImage
from enarx.api.keep_image import Image
from enarx.api.vm_image import CMDLINE, INITRD, KERNEL, MAX_CMDLINE_BYTES, SEV_FIRMWARE, VmImage
from enarx.attest.claims import Tee
from enarx.attest.measure import KernelHashes, Unmeasurable
from enarx.tenant.agent_calls import printable
from enarx.tenant.reference import (
    KeepImage,
    attested_tees,
    measurements,
    reference_values,
    started_registers,
)

NAMED: Final = 3
"""Files that are named; of more the number is given."""
MAX_NAME: Final = 120
_PLAIN: Final = re.compile(rf"[\w./+-]{{1,{MAX_NAME}}}", re.ASCII)
"""Names that are shown as they are; others are quoted, since the host that chose them may have written a sentence."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
VCPUS: Final = range(1, 9)
"""Numbers of processors that are tried, with each type that measures differently."""
VCPU_TYPES: Final = ("EPYC-v4", "EPYC-Rome", "EPYC-Milan", "EPYC-Genoa", "EPYC-Turin")
_SEV_FAMILY: Final = frozenset({Tee.SNP, Tee.SEV, Tee.SEV_ES})
_LATER: Final = "the command line or the initial ramdisk"
_REGISTERS: Final[Mapping[Tee, Mapping[str, str]]] = {
    Tee.TDX: {"measurement": "the firmware", "rtmr1": "the kernel", "rtmr2": _LATER},
    Tee.TPM: {"pcr4": "the kernel", "pcr9": _LATER},
}
"""What each register of a trust domain, or of a TPM, covers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A launch that is not the expected one: what it shows, and what is different."""

    values: Mapping[str, bytes]
    text: str


def is_expected(image: KeepImage, tee: Tee, found: Mapping[str, bytes]) -> bool:
    """Say whether ``found``, values of evidence by their names, are those of ``image``, if it runs there."""
    return all(found.get(name) in values for name, values in _expected(image, tee).items())


def name_difference(image: KeepImage, tee: Tee, found: Mapping[str, bytes], told: HostImage | None) -> str:
    """Say what is different where ``found``, values of genuine evidence by their names, are not those of ``image``.

    ``told`` is what the host says. Empty when there is nothing to say.
    """
    for launch in other_launches(image, tee, told):
        if all(found.get(name) == value for name, value in launch.values.items()):
            return launch.text
    return name_cause(image, tee, found, told)


def name_cause(image: KeepImage, tee: Tee, found: Mapping[str, bytes], told: HostImage | None) -> str:
    """Say as much where ``found`` is of none of ``other_launches``: registers that differ, and what the host says."""
    parts = []
    if isinstance(image, VmImage) and tee in _REGISTERS:
        expected = _expected(image, tee)
        parts += [what for name, what in _REGISTERS[tee].items() if found.get(name) not in expected[name]]
    text = f"it was launched with another: {', '.join(parts)}" if parts else ""
    claimed = _claimed(image, told)
    return "; ".join(part for part in (text, claimed) if part)


def other_launches(image: KeepImage, tee: Tee, told: HostImage | None) -> Iterator[Launch]:
    """Compute launches that a machine's owner could have chosen instead, the likeliest first."""
    if tee not in attested_tees(image):
        return
    if isinstance(image, Image):
        if told is not None and not told.cmdline and told.manifest.encode() != image.manifest:
            other = Image(manifest=told.manifest.encode(), size=0)
            yield Launch(
                values=reference_values(other, tee), text=f"the host's image differs: {_files(image, told)}"
            )
        return
    try:
        yield from _other_machines(image, tee, told)
    except Unmeasurable:
        return


def _other_machines(image: VmImage, tee: Tee, told: HostImage | None) -> Iterator[Launch]:
    from enarx.tenant.image.vm import CONSOLE, Machine

    if told is not None and tee in _SEV_FAMILY and (hashes := _told_hashes(image, told)) is not None:
        digest = measurements(image).launch_digest(tee, Machine(), hashes)
        yield Launch(values={"measurement": digest}, text=f"the host's image differs: {_files(image, told)}")
    if not image.console:
        text = "the console is switched on: the host reads what the kernel writes"
        yield Launch(values=reference_values(replace(image, cmdline=CONSOLE), tee), text=text)
    if told is not None and tee is not Tee.PEF and _is_cmdline(told.cmdline):
        text = f"its command line is {printable(told.cmdline)!a}"
        yield Launch(values=reference_values(replace(image, cmdline=told.cmdline), tee), text=text)
    if tee not in (Tee.SNP, Tee.SEV_ES):
        return
    for vcpus in VCPUS:
        for vcpu_type in VCPU_TYPES:
            machine = Machine(vcpus=vcpus, vcpu_type=vcpu_type)
            if machine != Machine():
                count = f"{vcpus} virtual processor{'' if vcpus == 1 else 's'} of type {vcpu_type}"
                usual = f"expected {Machine().vcpus} of type {Machine().vcpu_type}"
                text = f"the image is yours, the machine has {count}, {usual}"
                yield Launch(values=reference_values(image, tee, machine), text=text)


def _expected(image: KeepImage, tee: Tee) -> Mapping[str, Collection[bytes]]:
    if isinstance(image, VmImage) and tee is Tee.TPM:
        return started_registers(image)
    if tee not in attested_tees(image):
        return {}
    return {name: (value,) for name, value in reference_values(image, tee).items()}


def _told_hashes(image: VmImage, told: HostImage) -> KernelHashes | None:
    """Give what the host says that firmware which is ours was to check; None if it says nothing of the kind."""
    files, ours = _digests(told.manifest), _digests(image.manifest.decode())
    if files.get(SEV_FIRMWARE) != ours.get(SEV_FIRMWARE) or files == ours or not _is_cmdline(told.cmdline):
        return None
    try:
        kernel, initrd = bytes.fromhex(files[KERNEL]), bytes.fromhex(files[INITRD])
        return KernelHashes(
            kernel=kernel, initrd=initrd, cmdline=sha256(told.cmdline.encode() + b"\0").digest()
        )
    except (KeyError, ValueError, Unmeasurable):
        return None


def _is_cmdline(text: str) -> bool:
    return 0 < len(text) <= MAX_CMDLINE_BYTES and text.isascii() and text.isprintable()


def _claimed(image: KeepImage, told: HostImage | None) -> str:
    """Say what the host says, where nothing confirms it."""
    if told is None:
        return ""
    if isinstance(image, VmImage) != bool(told.cmdline):
        if told.cmdline:
            return "the host says that it launches virtual machines; say with --image what you expect"
        return (
            "the host says that it launches process keeps; leave out --image to expect that of this release"
        )
    if told.manifest.encode() == image.manifest:
        return "the host says that it launches your image, which the evidence contradicts"
    return f"the host says that its image differs: {_files(image, told)}"


def _files(image: KeepImage, told: HostImage) -> str:
    """Name the files that differ."""
    ours, theirs = _digests(image.manifest.decode()), _digests(told.manifest)
    names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    named = [_file(name, ours, theirs) for name in names[:NAMED]]
    if told.cmdline and isinstance(image, VmImage) and CMDLINE in names[:NAMED]:
        named[names.index(CMDLINE)] = f"its command line is {printable(told.cmdline)!a}"
    more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (printable(", ".join(named)) or "its manifest has another form") + more


def _file(name: str, ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    if name not in ours:
        shown = name if _PLAIN.fullmatch(name) else ascii(printable(name)[:MAX_NAME])
        return f"{shown} is too much"
    if name not in theirs:
        return f"{name} is missing"
    return f"{name} is sha256:{theirs[name][:16]}…, not {ours[name][:16]}…"


def _digests(manifest: str) -> dict[str, str]:
    """Read a manifest as far as it is one: digest, two spaces, name."""
    lines = (line.partition("  ") for line in manifest.splitlines())
    return {name: digest for digest, _, name in lines if _DIGEST.fullmatch(digest)}
