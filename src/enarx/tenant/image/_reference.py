"""What each TEE measures of a process keep's image: computed by the tenant, from the manifest alone.

The manifest lies in the guest's memory as the first and only thing that is measured, padded with zeros to whole
pages: from guest physical address 0x100000 on where addresses are measured, from offset 0 in an enclave, as the
kernel of a PEF machine (docs/explanation/keep-image.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final

from enarx.api.keep_image import Image
from enarx.attest.claims import Tee
from enarx.attest.measure import Permission, TdFirmware, TdSection, enclave_size, flat_pages, mrenclave, mrtd
from enarx.attest.pef import Digests
from enarx.attest.snp._launch import PageChain
from enarx.attest.tdx._tdvf import Attribute, SectionKind

GPA: Final = 0x100000
PAGE_BYTES: Final = 4096
BOOTARGS: Final = "enarx"


def reference_measurement(image: Image, tee: Tee) -> bytes:
    """Give what evidence of ``tee`` must show when ``image`` runs as a process keep. Raises ``KeyError``."""
    return _MEASURES[tee](image.manifest)


def pef_digests(manifest: bytes) -> Digests:
    """Give what is sealed for a PEF machine that runs the image of ``manifest``."""
    return Digests.of(kernel=manifest, bootargs=BOOTARGS)


def _padded(manifest: bytes) -> bytes:
    return manifest + bytes(-len(manifest) % PAGE_BYTES)


def _snp(manifest: bytes) -> bytes:
    chain = PageChain()
    chain.normal(GPA, _padded(manifest))
    return chain.digest


def _sev(manifest: bytes) -> bytes:
    return sha256(_padded(manifest)).digest()


def _sev_es(manifest: bytes) -> bytes:
    return sha256(_padded(manifest) + bytes(PAGE_BYTES)).digest()  # and the one save area, which is empty


def _tdx(manifest: bytes) -> bytes:
    data = _padded(manifest)
    section = TdSection(
        gpa=GPA, size=len(data), kind=SectionKind.BFV, attributes=Attribute.MR_EXTEND, data=data
    )
    return mrtd(TdFirmware(sections=(section,)))


def _sgx(manifest: bytes) -> bytes:
    data = _padded(manifest)
    pages = flat_pages(data, tcs=(), permissions=Permission.R | Permission.X)
    return mrenclave(size=enclave_size(len(data)), pages=pages)


def _pef(manifest: bytes) -> bytes:
    return pef_digests(manifest).measurement


_MEASURES: Final[Mapping[Tee, Callable[[bytes], bytes]]] = {
    Tee.SNP: _snp,
    Tee.SEV: _sev,
    Tee.SEV_ES: _sev_es,
    Tee.TDX: _tdx,
    Tee.SGX: _sgx,
    Tee.PEF: _pef,
}
"""The TEEs on which a process keep can be measured."""
MEASURED: Final = tuple(_MEASURES)
