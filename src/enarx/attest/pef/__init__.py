"""IBM's Protected Execution Facility, attested before the guest runs: there is no signed report. The owner seals the
digests of the virtual machine and its secrets into an ESM blob that only the chosen machines can open, and their
ultravisor gives out the secrets only inside the virtual machine that has those digests. Who shows such a secret is it.

Digests.of: measure a virtual machine
build_esm_blob: seal its digests and secrets for machines by their public keys
parse_esm_blob, parse_digests: what is in a blob
"""

from enarx.attest.pef._esm import (
    OAEP,
    OWNER,
    RTAS,
    Digests,
    EsmBlob,
    Lockbox,
    Sealed,
    build_esm_blob,
    parse_digests,
    parse_esm_blob,
)

__all__ = [
    "OAEP",
    "OWNER",
    "RTAS",
    "Digests",
    "EsmBlob",
    "Lockbox",
    "Sealed",
    "build_esm_blob",
    "parse_digests",
    "parse_esm_blob",
]
