"""A virtual machine whose start a TPM in software has measured: evidence without a TEE, no protection from the host.

Firmware, kernel, command line and initial ramdisk go into registers, of which the keep shows quotes. Memory is not
encrypted, and the TPM belongs to who runs the machine: his word is all that such evidence is.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path

from enarx.api.vm_image import SBOM, VmImage
from enarx.attest import Kind, Tee
from enarx.host import platform
from enarx.host.backend import Endorsements, Fact, Launched, Support
from enarx.host.backends._machine import MachineBackend
from enarx.host.platform._kvm import vm_tpm
from enarx.host.platform._machine import Machine, this_machine
from enarx.host.vm import Protection, Seeds, VmKeep, find_accelerator
from enarx.host.vm._tpm import pem_of
from enarx.tcb.errors import Malformed, Unavailable


class VmTpmBackend(MachineBackend):
    """``--backend vm-tpm=DIRECTORY``."""

    protection = Protection.TPM
    least_qemu = (7, 2)
    emulated = True
    """It is no TEE: nothing keeps the host out."""

    def __init__(self, argument: str) -> None:
        """``argument``: the directory for the seeds of this host's TPMs. Raises ``Unavailable``."""
        if not argument:
            hint = "--backend vm-tpm=DIRECTORY, which is made when it is first used"
            raise Unavailable("backend vm-tpm: where are the seeds of its TPMs?", hint=hint)
        super().__init__("")
        self._place = Path(argument)
        self._lock = threading.Lock()
        self._opened: Seeds | None = None

    @property
    def tee(self) -> str:
        """The name of the evidence."""
        return Tee.TPM.value

    def support(self) -> Support:
        """Look for the programs; name the firmware of the images that were prepared, and who runs instructions."""
        found = vm_tpm(this_machine())
        facts = [
            Fact(name=it.name, passed=it.passed, detail=it.info, advice=it.advice)
            for it in (*found.data, *found.configuration)
        ]
        facts.append(Fact(name="accelerator", passed=True, detail=find_accelerator().detail))
        facts += [
            Fact(name="firmware", passed=True, detail=_firmware(image)) for image in self._images.values()
        ]
        return Support(ready=all(fact.passed for fact in facts), facts=tuple(facts))

    def prepare(self, image: Path) -> None:
        """Read the image, and make the seeds if this host has none."""
        super().prepare(image)
        self._seeds().public_key()

    def endorsements(self) -> Endorsements:
        """Give the attestation key of this host's TPMs, for who wants to enrol it."""
        key = self._seeds().public_key()
        return Endorsements(documents=((Kind.PUBLIC_KEY.value, key),), roots=(pem_of(key),))

    def start(self, image: VmImage, tenant: bytes) -> Launched:
        """Start a machine with a TPM of its own, and wait until it is ready."""
        if tenant:
            raise Malformed(f"a launch on {self.tee} takes nothing from the tenant")
        keep = VmKeep(self.protection, self.boot(image), self.guest(image), tpm=self._seeds().new_tpm())
        keep.await_ready()
        return keep

    def close(self) -> None:
        """Let go of the seeds."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def judge(self, machine: Machine) -> platform.Backend:
        """Look for QEMU and swtpm."""
        return vm_tpm(machine)

    def firmware(self, image: VmImage) -> Path | None:
        """Take the OVMF that measures what it starts."""
        return image.firmware

    def objects(self) -> Sequence[str]:
        """Give none: nothing protects this machine."""
        return ()

    def _seeds(self) -> Seeds:
        with self._lock:
            if self._opened is None:
                self._opened = Seeds(self._place)
            return self._opened


def _firmware(image: VmImage) -> str:
    """Name the firmware as the image's bill of materials does."""
    assert image.firmware is not None  # noqa: S101 (only such images are prepared)
    place = image.firmware
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        for package in json.loads(place.with_name(SBOM).read_bytes())["components"]:
            if any(file["name"] == place.name for file in package["components"]):
                return f"{package['name']} {package['version']}"
    return place.name
