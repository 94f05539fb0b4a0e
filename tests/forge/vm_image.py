"""Images of VM keeps that are as small as can be measured; no kernel of theirs runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.forge.firmware import Ovmf
from tests.forge.kernel import bz_image

from enarx.api.keep_image import manifest_line
from enarx.api.vm_image import VmImage

FILES: Final[Mapping[str, bytes]] = {
    "cmdline": b"quiet",
    "initrd": b"ramdisk",
    "ovmf-sev.fd": Ovmf().build(),
    "ovmf.fd": Ovmf(seed=1).build(),
    "vmlinux": b"unpacked",
    "vmlinuz": bz_image(),
}


def vm_image(place: Path, changed: Mapping[str, bytes] | None = None) -> VmImage:
    """Write the image to ``place``, with other contents where ``changed`` names them."""
    files = {**FILES, **(changed or {})}
    place.mkdir(exist_ok=True)
    for name, content in files.items():
        (place / name).write_bytes(content)
    return VmImage(
        kernel=place / "vmlinuz",
        vmlinux=place / "vmlinux",
        initrd=place / "initrd",
        cmdline=files["cmdline"].decode(),
        sev_firmware=place / "ovmf-sev.fd",
        firmware=place / "ovmf.fd",
        manifest="".join(manifest_line(name, files[name]) for name in sorted(files)).encode(),
    )
