"""What the enclave of the SGX demo is, as its tenant knows it: a command line, the files that it loads, MRENCLAVE."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cbor2
import cryptography

import enarx
from enarx.attest.measure import Permission, enclave_size, flat_pages, mrenclave
from enarx.tcb.errors import Unavailable

_ISOLATED: Final = ("-I", "-S", "-B", "-X", "pycache_prefix=/dev/null")
"""No site, no environment, and only source files: compiled ones are not measured."""
_LOAD: Final = "import sys; sys.path += {}; import enarx.tenant.demo.enclave as enclave; "
_RUN: Final = "enclave.main()"
_LIST: Final = (
    "enclave.rehearse(); "
    "print(*(m.__file__ for m in [*sys.modules.values()] if getattr(m, '__file__', None)), sep='\\n')"
)
_TIMEOUT_S: Final = 60
_PAGE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveImage:
    """What the platform is asked to start."""

    argv: list[str]
    files: bytes
    """A digest and a path a line, and the digest of the command line: what the enclave's pages hold."""

    @property
    def mrenclave(self) -> bytes:
        """Give MRENCLAVE (32 bytes) of the list, loaded from offset 0 as pages that can be read and run."""
        padded = self.files.ljust(-(-len(self.files) // _PAGE_BYTES) * _PAGE_BYTES, b"\0")
        pages = flat_pages(padded, tcs=(), permissions=Permission.R | Permission.X)
        return mrenclave(size=enclave_size(len(padded)), pages=pages)


def build_image() -> EnclaveImage:
    """Measure the enclave from the tenant's own installation. Raises ``Unavailable``."""
    python = str(Path(sys.executable).resolve())
    folders = dict.fromkeys(str(Path(module.__path__[0]).parent) for module in (enarx, cryptography, cbor2))
    load = _LOAD.format(list(folders))
    listed = subprocess.run(
        [python, *_ISOLATED, "-c", load + _LIST], capture_output=True, text=True, timeout=_TIMEOUT_S, env={}
    )
    if listed.returncode:
        raise Unavailable(f"the enclave does not load: {listed.stderr.strip().rpartition(chr(10))[2]}")
    argv = [python, *_ISOLATED, "-c", load + _RUN]
    lines = [
        f"{_sha256(Path(name).read_bytes())}  {name}"
        for name in sorted({python, *listed.stdout.split("\n")[:-1]})
    ]
    lines.append(f"{_sha256(chr(0).join(argv).encode())}  argv")
    return EnclaveImage(argv=argv, files="".join(f"{line}\n" for line in lines).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
