"""Build the image of VM keeps: from the lock and this release to a directory that is the same wherever it is built."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from enarx.api.keep_image import MANIFEST, manifest_line
from enarx.api.vm_image import (
    CMDLINE,
    FILES,
    FIRMWARE,
    INITRD,
    KERNEL,
    SBOM,
    SEV_FIRMWARE,
    VMLINUX,
    VmImage,
    read_vm_image,
)
from enarx.tcb.errors import EnarxError, Malformed, Unavailable
from enarx.tenant.image.vm._contents import bill, file_list
from enarx.tenant.image.vm._cpio import cpio
from enarx.tenant.image.vm._deb import read_deb
from enarx.tenant.image.vm._fetch import Cache
from enarx.tenant.image.vm._guest import FORM, Guest
from enarx.tenant.image.vm._kernel import MODULES, vmlinux
from enarx.tenant.image.vm._lock import Lock, Package, Role, installed_lock
from enarx.tenant.image.vm._sources import Source, license_of, own_sources, system_sources, wheel_sources
from enarx.tenant.image.vm._tree import INIT, build_tree

COMMAND_LINE: Final = (
    "quiet loglevel=0 panic=-1 reboot=t cryptomgr.notests noreplace-smp "
    "initcall_blacklist=jent_mod_init,crypto_kdf108_init,trace_eval_init,"
    "ftrace_check_for_weak_functions,bpf_tcp_ca_kfunc_init,bpf_dummy_struct_ops_init "
    "random.trust_cpu=on random.trust_bootloader=off"
)
"""No console, no second chance after a panic, no self-tests and no tables of parts that a keep does not use (tracing,
TCP in BPF); the instructions for several processors also on one, as replacing them costs a translated guest more than
they ever would; and the processor's randomness counts, what the host calls a seed does not.
"""
CONSOLE: Final = COMMAND_LINE.replace("quiet loglevel=0", "console=ttyS0 loglevel=7")
"""The same with everything the kernel says on the first serial line: to find faults, never for a secret."""
_KERNEL_FILE: Final = re.compile(r"boot/vmlinuz-.+")
_MODULE_FILE: Final = re.compile(r"(?:usr/)?lib/modules/[^/]+/kernel/.*/([^/]+)\.ko\.xz")
_FIRMWARE_FILE: Final = {
    Role.SEV_FIRMWARE: (SEV_FIRMWARE, "usr/share/ovmf/OVMF.amdsev.fd"),
    Role.FIRMWARE: (FIRMWARE, "usr/share/ovmf/OVMF.fd"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a builder may choose; each choice gives another image, which is measured differently."""

    console: bool = False
    firmware: bool = True
    """Whether the image has firmware, without which nothing can be attested but by TEEs that have their own."""
    init: str = INIT


def build_vm_image(
    out: Path,
    cache: Cache,
    *,
    lock: Lock | None = None,
    options: Options | None = None,
    tell: Callable[[str], None] = lambda step: None,
) -> VmImage:
    """Write the image to the directory ``out``, in whose place there is none or an older image; ``tell`` each step.

    The same image that is there already stays, with what somebody has signed of it.
    Raises ``Malformed``, ``Unavailable``.
    """
    lock, options = lock or installed_lock(), options or Options()
    roles = set(Role) if options.firmware else {Role.KERNEL, Role.SYSTEM, Role.TOOL}
    _check_place(out)
    tell("looking for the packages and wheels of the lock")
    cache.fetch(lock, lock.of(*roles))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as made:
            files = _image_files(lock, cache, options, Path(made, "root").resolve(), tell)
            image = _write(files, Path(made, "image"))
            _replace(image, out)
    except OSError as error:
        raise Unavailable(f"{out}: {(error.strerror or str(error)).lower()}") from None
    return read_vm_image(out)


def _image_files(
    lock: Lock, cache: Cache, options: Options, root: Path, tell: Callable[[str], None]
) -> dict[str, bytes]:
    tell("unpacking the packages")
    kernel, modules = _kernel(lock, cache)
    sources = system_sources({package: cache.read(package) for package in lock.of(Role.SYSTEM, Role.TOOL)})
    wheels = {wheel: cache.read(wheel) for wheel in lock.wheels}
    for wheel, data in wheels.items():
        sources |= wheel_sources(wheel, data)
    sources |= own_sources()
    tell("asking the image's interpreter what a keep loads, and compiling that")
    tree = build_tree(sources, modules, root, options.init)
    guest = Guest(root)
    outside: dict[str, Source] = {KERNEL: kernel}
    if options.firmware:
        outside |= {name: source for role in _FIRMWARE_FILE for name, source in _firmware(lock, cache, role)}
    tell("compressing the initial ramdisk")
    licenses = {wheel.name: license_of(data) for wheel, data in wheels.items()}
    return {
        **{name: source.content for name, source in outside.items()},
        VMLINUX: vmlinux(kernel.content, guest.decompress),
        INITRD: _compressed(cpio(tree.entries()), guest, cache),
        CMDLINE: (CONSOLE if options.console else COMMAND_LINE).encode(),
        FILES: file_list(tree, outside),
        SBOM: bill(tree, outside, licenses),
    }


def _kernel(lock: Lock, cache: Cache) -> tuple[Source, dict[str, Source]]:
    """Find the kernel and the modules, in the order in which they are loaded."""
    package = lock.of(Role.KERNEL)[0]
    kernels: list[Source] = []
    modules: dict[str, Source] = {}
    for path, source in _members(package, cache).items():
        if _KERNEL_FILE.fullmatch(path):
            kernels.append(source)
        elif match := _MODULE_FILE.fullmatch(path):
            modules[match[1]] = source
    if len(kernels) != 1:
        raise Malformed(f"{package.file}: {len(kernels)} kernels in it, expected one")
    if missing := [name for name in MODULES if name not in modules]:
        raise Malformed(f"{package.file}: no module {missing[0]} in it")
    return kernels[0], {name: modules[name] for name in MODULES}


def _firmware(lock: Lock, cache: Cache, role: Role) -> list[tuple[str, Source]]:
    name, path = _FIRMWARE_FILE[role]
    return [(name, source) for package in lock.of(role) for source in [_members(package, cache)[path]]]


def _members(package: Package, cache: Cache) -> dict[str, Source]:
    """Give what is wanted of a package that is not unpacked as a whole."""
    return {
        member.path: Source(content=member.content, executable=False, origin=package)
        for member in read_deb(cache.read(package), _is_wanted)
        if not member.target
    }


def _is_wanted(path: str) -> bool:
    if match := _MODULE_FILE.fullmatch(path):
        return match[1] in MODULES
    return bool(_KERNEL_FILE.fullmatch(path)) or path in {wanted for _, wanted in _FIRMWARE_FILE.values()}


def _compressed(archive: bytes, guest: Guest, cache: Cache) -> bytes:
    """Compress the archive, which takes most of a build's time: once for each archive and form."""
    name = f"initrd-{sha256(repr(FORM).encode() + archive).hexdigest()}.zst"
    found = cache.kept(name)
    if found is not None and guest.decompress(found, len(archive)) == archive:
        return found
    made = guest.compress(archive)
    cache.keep(name, made)
    return made


def _write(files: Mapping[str, bytes], directory: Path) -> Path:
    directory.mkdir()
    manifest = "".join(manifest_line(name, files[name]) for name in sorted(files)).encode()
    for name, content in {**files, MANIFEST: manifest}.items():
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o644)
    directory.chmod(0o755)
    return directory


def _check_place(out: Path) -> None:
    """Refuse a directory in whose place something would be lost."""
    if out.exists() and not (out / MANIFEST).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise Unavailable(f"{out}: there is something that is no image", hint="choose another directory")


def _replace(image: Path, out: Path) -> None:
    """Put the finished image in its place, one builder after another."""
    old = image.with_name("old")
    turn = os.open(out.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        _check_place(out)
        if _is_same(image, out):
            return
        if out.exists():
            os.rename(out, old)
        os.rename(image, out)
    finally:
        os.close(turn)
    shutil.rmtree(old, ignore_errors=True)


def _is_same(image: Path, out: Path) -> bool:
    """Whether what is there is whole and this very image."""
    try:
        return read_vm_image(out).digest == read_vm_image(image).digest
    except EnarxError:
        return False
