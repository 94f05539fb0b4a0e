"""AMD SEV-SNP: OVMF is measured with hashes of kernel, ramdisk and command line; the guest asks for reports itself."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from enarx.api.vm_image import SNP_POLICY, VmImage
from enarx.attest.measure import (
    CPU_SIGNATURES,
    hash_kernel,
    parse_sev_firmware,
    snp_launch_digest,
    verify_id_auth,
)
from enarx.host import platform
from enarx.host.backends._machine import MachineBackend, check_size, memory_encryption
from enarx.host.platform._machine import Machine, this_machine
from enarx.host.platform._sev import snp, snp_collateral
from enarx.host.vm import Guest, Protection
from enarx.host.vm._options import MEMORY_MIB, SHAPES


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpLaunch:
    """What an SNP launch is given beside its pages."""

    c_bit: int
    reduced_bits: int
    policy: int = SNP_POLICY
    host_data: bytes = bytes(32)
    id_block: bytes = b""
    """96 bytes, with ``id_auth`` of 4096; nothing of both leaves the guest without a name."""
    id_auth: bytes = b""
    author_key: bool = False

    def __post_init__(self) -> None:
        named = bool(self.id_block)
        check_size("host_data", self.host_data, 32)
        check_size("id_block", self.id_block, 96 if named else 0)
        check_size("id_auth", self.id_auth, 4096 if named else 0)  # QEMU takes any up to that

    def objects(self) -> tuple[str, str]:
        """Give the arguments of ``-object``."""
        parts = [
            f"sev-snp-guest,id=tee0,cbitpos={self.c_bit},reduced-phys-bits={self.reduced_bits}",
            f"policy={self.policy:#x},kernel-hashes=on,host-data={b64encode(self.host_data).decode()}",
        ]
        if self.id_block:
            named = f"id-block={b64encode(self.id_block).decode()},id-auth={b64encode(self.id_auth).decode()}"
            parts.append(f"{named},author-key-enabled={'on' if self.author_key else 'off'}")
        memory = f"memory-backend-memfd,id=ram0,size={MEMORY_MIB}M,share=true,prealloc=false"
        return memory, ",".join(parts)


class SnpBackend(MachineBackend):
    """``--backend snp``."""

    protection = Protection.SNP
    least_qemu = (9, 1)

    def judge(self, machine: Machine) -> platform.Backend:
        """Look for SNP. Collateral on this machine is no condition: tenants can ask AMD."""
        now = datetime.now(UTC)
        found, collateral = snp(machine, now), snp_collateral(machine, now)
        needed = tuple(fact for fact in found.configuration if fact not in collateral)
        return replace(found, configuration=needed)

    def firmware(self, image: VmImage) -> Path | None:
        """Take the OVMF that holds the kernel against its hashes."""
        return image.sev_firmware

    def check_firmware(self, content: bytes) -> None:
        """Refuse OVMF that would start any kernel, or that SNP cannot start."""
        firmware, model = parse_sev_firmware(content), CPU_SIGNATURES[SHAPES[self.protection].cpu]
        snp_launch_digest(firmware, vcpus=1, cpu_signature=model, kernel=hash_kernel(b""))

    def guest(self, image: VmImage) -> Guest:
        """Give the machine, by the name that somebody has signed for the image."""
        if image.snp_identity is None:
            return super().guest(image)
        block, auth = image.snp_identity
        author_key = any(verify_id_auth(block, auth).author_key_digest)
        named = replace(self._launch(), id_block=block, id_auth=auth, author_key=author_key)
        return Guest(cmdline=image.cmdline, objects=named.objects())

    def objects(self) -> Sequence[str]:
        """Give memory and guest."""
        return self._launch().objects()

    def _launch(self) -> SnpLaunch:
        c_bit, reduced = memory_encryption(this_machine())
        return SnpLaunch(c_bit=c_bit, reduced_bits=reduced)
