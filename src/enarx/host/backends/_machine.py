"""What backends of TEEs that are virtual machines have in common: the image, QEMU, what the machine must have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from enarx.api.vm_image import VmImage, read_vm_image
from enarx.host import platform
from enarx.host.backend import Endorsements, Fact, Launched, LaunchRequest, Support
from enarx.host.platform._machine import Machine, this_machine
from enarx.host.platform._qemu import qemu
from enarx.host.vm import Boot, Guest, Protection, VmKeep
from enarx.host.vm._accelerator import Accelerator
from enarx.host.vm._options import SHAPES
from enarx.tcb.errors import EnarxError, Malformed, Unavailable

HARDWARE: Final = Accelerator(kvm=True, detail="KVM, which a TEE needs")


class MachineBackend(ABC):
    """Implements ``enarx.host.backend.Backend`` for one TEE; what differs is abstract."""

    protection: Protection
    least_qemu: tuple[int, int]
    emulated = False

    def __init__(self, argument: str) -> None:
        """``argument`` must be empty: there is one such TEE in a machine. Raises ``Malformed``."""
        if argument:
            raise Malformed(f"backend {self.name} takes no argument, found {argument[:40]!r}")
        self._images: dict[Path, VmImage] = {}

    @property
    def name(self) -> str:
        """The name of the TEE."""
        return self.protection.value

    @property
    def tee(self) -> str:
        """The name of the TEE."""
        return self.protection.value

    def support(self) -> Support:
        """Look at the machine and at QEMU."""
        facts = (*self._qemu(), *_flat(self.judge(this_machine())))
        return Support(ready=all(fact.passed for fact in facts), facts=facts)

    def endorsements(self) -> Endorsements:
        """Give nothing: evidence brings what the host has, and the vendor's service gives the rest."""
        return Endorsements()

    def prepare(self, image: Path) -> None:
        """Read the image, hold its files against its manifest, and see whether its firmware suits."""
        if image.is_file():
            hint = "name the directory of a VM image with --image; enarx image build --vm makes one"
            raise Unavailable(f"{self.name} launches virtual machines, {image} is no image of one", hint=hint)
        found = read_vm_image(image)
        if found.console:
            hint = "keeps of hosts have none; docs/how-to/build-a-vm-image.md tells how to start it by hand"
            raise Unavailable(
                f"{image}: its kernel writes to a console, which the host would read", hint=hint
            )
        firmware = self.firmware(found)
        if firmware is None:
            raise Unavailable(
                f"{image}: the image has no firmware for {self.name}", hint="build it with firmware"
            )
        try:
            self.check_firmware(firmware.read_bytes())
        except (EnarxError, OSError) as error:
            hint = "build the image anew: firmware of this release has all that a launch needs"
            raise Unavailable(f"{firmware}: not for {self.name}: {error}", hint=hint) from None
        self._images[image] = found

    def launch(self, request: LaunchRequest) -> Launched:
        """Launch a machine. Raises ``EnarxError``."""
        self._need_qemu()
        if request.image not in self._images:
            self.prepare(request.image)
        return self.start(self._images[request.image], request.tenant)

    def start(self, image: VmImage, tenant: bytes) -> Launched:
        """Start a TEE that attests after boot, and wait until it is ready."""
        if tenant:
            raise Malformed(f"a launch on {self.tee} takes nothing from the tenant")
        keep = VmKeep(self.protection, self.boot(image), self.guest(image), accelerator=HARDWARE)
        keep.await_ready()
        return keep

    def boot(self, image: VmImage) -> Boot:
        """Give the files: what firmware starts, and the firmware."""
        return Boot(kernel=image.kernel, initrd=image.initrd, firmware=self.firmware(image))

    def guest(self, image: VmImage) -> Guest:
        """Give the machine, with the objects that protect it."""
        return Guest(cmdline=image.cmdline, objects=self.objects())

    def close(self) -> None:  # noqa: B027 (there is nothing to let go of)
        """Hold nothing."""

    @abstractmethod
    def judge(self, machine: Machine) -> platform.Backend:
        """Look whether ``machine`` has the TEE."""

    @abstractmethod
    def firmware(self, image: VmImage) -> Path | None:
        """Choose the firmware of an image."""

    def check_firmware(self, content: bytes) -> None:  # noqa: B027 (some need nothing of it)
        """Refuse firmware whose launch says nothing of what it starts. Raises ``EnarxError``."""

    @abstractmethod
    def objects(self) -> Sequence[str]:
        """Give the arguments of ``-object`` for one guest."""

    def _qemu(self) -> tuple[Fact, ...]:
        fact = qemu(this_machine(), SHAPES[self.protection].program, self.least_qemu)
        return (Fact(name=fact.name, passed=fact.passed, detail=fact.info, advice=fact.advice),)

    def _need_qemu(self) -> None:
        """Refuse a QEMU that does not know the TEE, in clearer words than its own. Raises ``Unavailable``."""
        for fact in self._qemu():
            if not fact.passed:
                raise Unavailable(f"{self.name}: {fact.detail}", hint=fact.advice)


def memory_encryption(machine: Machine) -> tuple[int, int]:
    """Give position of the C-bit and number of physical address bits lost (AMD 24594, CPUID Fn8000_001F[EBX]).

    Raises ``Unavailable``.
    """
    found = machine.cpuid(0x8000_001F, 0)
    if found is None:
        raise Unavailable(
            "the processor does not tell where it marks encrypted pages",
            hint="load the kernel module cpuid, and let this user read /dev/cpu/0/cpuid",
        )
    return found[1] & 0x3F, found[1] >> 6 & 0x3F


def check_size(name: str, value: bytes, size: int) -> None:
    """Refuse what the hardware would not take. Raises ``Malformed``."""
    if len(value) != size:
        raise Malformed(f"{name}: expected {size} bytes, found {len(value)}")


def _flat(backend: platform.Backend) -> Iterator[Fact]:
    """Tell every fact about a machine as one of a backend."""
    for top in (*backend.data, *backend.configuration):
        for fact in top.all():
            yield Fact(name=fact.name, passed=fact.passed, detail=fact.info, advice=fact.advice)
