"""Pre-boot TEEs (SEV, SEV-ES, PEF): the measured guest alone was given a secret, and shows that it has it.

Linux gives the secrets of a launch as files named by GUID (``/sys/kernel/security/secrets/coco``).
"""

from __future__ import annotations

import contextlib
from typing import Final

from enarx.tcb.errors import Unavailable
from enarx.tcb.keep.platform._trees import Tree
from enarx.tcb.session import LAUNCH_GUID, LAUNCH_KEY_BYTES, launch_proof
from enarx.tcb.wire import encode

FOLDER: Final = "coco"
TYPE: Final = "application/vnd.enarx.evidence.launch-proof"


class LaunchSecretSource:
    """Proofs with the secret of this launch."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def evidence(self, report_data: bytes) -> bytes:
        """Give ``report_data`` and its MAC under the secret; the tenant has the rest of the evidence already."""
        return encode([TYPE, encode([report_data, launch_proof(self._secret, report_data)])])


def open_source(tree: Tree) -> LaunchSecretSource:
    """Take the secret out of ``tree``, so that nothing finds it there again."""
    path = f"{FOLDER}/{LAUNCH_GUID}"
    try:
        secret = tree.read(path)
        with contextlib.suppress(PermissionError):  # where it stays, it still is for this guest alone
            tree.remove(path)
    except OSError as error:
        raise Unavailable(f"the launch secret cannot be read: {error.strerror}") from None
    if len(secret) != LAUNCH_KEY_BYTES:
        raise Unavailable(f"the launch secret has {len(secret)} bytes, expected {LAUNCH_KEY_BYTES}")
    return LaunchSecretSource(secret)
