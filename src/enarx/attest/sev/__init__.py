"""AMD SEV and SEV-ES, attested before the guest runs: the owner verifies the platform, opens a session with it,
compares the launch measurement, and only then hands over a secret.

parse_chain, verify_chain: the platform's certificates, up to a pinned root of AMD
GuestPolicy, STRICT, pack_policy, SessionKeys, prepare_session: what LAUNCH_START takes
parse_launch_measure, LaunchMeasure.check: what LAUNCH_MEASURE gives
pack_secret: what LAUNCH_SECRET takes
"""

from enarx.attest.sev._certs import AmdCertificate, SevCertificate, parse_amd_certificate, parse_certificate
from enarx.attest.sev._chain import Platform, PlatformChain, parse_chain, verify_chain
from enarx.attest.sev._session import (
    STRICT,
    GuestPolicy,
    LaunchMeasure,
    LaunchRefused,
    SecretPacket,
    SessionKeys,
    VerifiedLaunch,
    pack_policy,
    pack_secret,
    parse_launch_measure,
    prepare_session,
)

__all__ = [
    "STRICT",
    "AmdCertificate",
    "GuestPolicy",
    "LaunchMeasure",
    "LaunchRefused",
    "Platform",
    "PlatformChain",
    "SecretPacket",
    "SessionKeys",
    "SevCertificate",
    "VerifiedLaunch",
    "pack_policy",
    "pack_secret",
    "parse_amd_certificate",
    "parse_certificate",
    "parse_chain",
    "parse_launch_measure",
    "prepare_session",
    "verify_chain",
]
