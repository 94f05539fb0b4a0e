"""The certificates that a workload verifies its TLS connections with: those of the machine whose user delivers it."""

from __future__ import annotations

from pathlib import Path

from enarx.tcb.errors import Unavailable
from enarx.tcb.workload import Config, Connect, Protocol


def machine_roots(config: Config) -> bytes:
    """Give them as PEM when the workload connects over TLS: they are part of what it is delivered.

    Raises ``Unavailable``.
    """
    if not any(isinstance(it, Connect) and it.protocol is Protocol.TLS for it in config.files):
        return b""
    import ssl

    path = ssl.get_default_verify_paths().cafile
    if path is None:
        raise Unavailable(
            "this machine has no certificates to verify TLS connections with",
            hint="install the package ca-certificates, or name a file in SSL_CERT_FILE",
        )
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Unavailable(f"{path}: {(error.strerror or '').lower()}") from None
