"""Launches of SEV and of PEF that were given a secret, and proofs of it."""

from __future__ import annotations

import hashlib
import os
from functools import cache

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.forge.pki import rsa_key
from tests.forge.sev import Launch

from enarx.attest import TrustAnchors
from enarx.attest.launch_proof import pack_proof
from enarx.attest.pef import Digests, SealedLaunch
from enarx.attest.sev import LaunchSession, VerifiedLaunch, pack_proven, parse_evidence
from enarx.tcb.session import launch_proof

SECRET = bytes(range(200, 232))
REPORT_DATA = hashlib.sha512(b"a session").digest()
DIGESTS = Digests.of(kernel=b"manifest", bootargs="enarx")


def proof(secret: bytes = SECRET, report_data: bytes = REPORT_DATA) -> bytes:
    """What the guest that has ``secret`` shows."""
    return pack_proof(report_data, launch_proof(secret, report_data))


def proven(launch: Launch, shown: bytes | None = None) -> bytes:
    """Evidence of a launch with a proof."""
    return pack_proven(launch.raw, proof() if shown is None else shown)


def released(launch: Launch, secret: bytes = SECRET) -> LaunchSession:
    """What the owner keeps once the launch was given ``secret``."""
    measure = parse_evidence(launch.raw).measure.measure
    return launch.session.released(VerifiedLaunch(measure=measure), secret)


def machine_pem(name: str = "machine") -> bytes:
    """The public key of a machine of PEF."""
    return rsa_key(name).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@cache
def sealed(name: str = "machine") -> SealedLaunch:
    """What the owner of a virtual machine on a machine of this name keeps."""
    return SealedLaunch.seal(DIGESTS, machine=machine_pem(name), random=os.urandom)[1]


def machine_anchors(name: str = "machine") -> TrustAnchors:
    """The machine's key alone."""
    return TrustAnchors.none().adding(machine_pem(name), name="machine of the test")
