"""IBM's Protected Execution Facility, attested before the guest runs: there is no signed report. The owner seals the
digests of the virtual machine and its secrets into an ESM blob that only the chosen machines can open, and their
ultravisor gives out the secrets only inside the virtual machine that has those digests. Who shows such a secret is it.

Digests.of: measure a virtual machine
build_esm_blob: seal its digests and secrets for machines by their public keys
parse_esm_blob, parse_digests: what is in a blob
SealedLaunch: digests and a secret in a blob for one machine, as its owner keeps them
VERIFIER: proofs of that secret, as one of the kinds of evidence of ``Verifier``
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
from enarx.attest.pef._launch import SealedLaunch, parse_sealed, write_sealed
from enarx.attest.pef._policy import PefRules
from enarx.attest.pef._tee import VERIFIER
from enarx.attest.pef._verify import PefDetail, find_machine

__all__ = [
    "OAEP",
    "OWNER",
    "RTAS",
    "VERIFIER",
    "Digests",
    "EsmBlob",
    "Lockbox",
    "PefDetail",
    "PefRules",
    "Sealed",
    "SealedLaunch",
    "build_esm_blob",
    "find_machine",
    "parse_digests",
    "parse_esm_blob",
    "parse_sealed",
    "write_sealed",
]
