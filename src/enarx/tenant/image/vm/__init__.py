"""The image of VM keeps: a kernel, a first file system with nothing in it but the keep, and firmware.

build_vm_image(Path("enarx-vm"), Cache(Path("cache")))
"""

from enarx.api.vm_image import VmImage, read_vm_image
from enarx.tenant.image.vm._build import COMMAND_LINE, CONSOLE, Options, build_vm_image
from enarx.tenant.image.vm._fetch import Cache, configured_mirrors
from enarx.tenant.image.vm._lock import Lock, Package, Role, Wheel, format_lock, installed_lock, parse_lock
from enarx.tenant.image.vm._measurements import PCRS, VM_TEES, Machine, Measurements
from enarx.tenant.image.vm._tpm_policy import TPM_MACHINES, tpm_policy, tpm_registers, tpm_section
from enarx.tenant.image.vm._tree import INIT

__all__ = [
    "COMMAND_LINE",
    "CONSOLE",
    "INIT",
    "PCRS",
    "TPM_MACHINES",
    "VM_TEES",
    "Cache",
    "Lock",
    "Machine",
    "Measurements",
    "Options",
    "Package",
    "Role",
    "VmImage",
    "Wheel",
    "build_vm_image",
    "configured_mirrors",
    "format_lock",
    "installed_lock",
    "parse_lock",
    "read_vm_image",
    "tpm_policy",
    "tpm_registers",
    "tpm_section",
]
