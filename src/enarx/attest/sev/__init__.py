"""AMD SEV and SEV-ES, attested before the guest runs: the owner verifies the platform, opens a session with it,
compares the launch measurement, and only then hands over a secret.

parse_chain, exported, verify_chain: the platform's certificates, up to a pinned root of AMD
GuestPolicy, STRICT, pack_policy, SessionKeys, prepare_session, owner_certificate: what LAUNCH_START takes
parse_launch_measure, LaunchMeasure.check: what LAUNCH_MEASURE gives
build_secret_table, pack_secret: what LAUNCH_SECRET takes
LaunchSession, pack_evidence, pack_proven, VERIFIER: all of it at once, as one of the kinds of evidence of ``Verifier``
"""

from enarx.attest.sev._certs import AmdCertificate, SevCertificate, parse_amd_certificate, parse_certificate
from enarx.attest.sev._chain import Platform, PlatformChain, parse_chain, verify_chain
from enarx.attest.sev._encode import owner_certificate
from enarx.attest.sev._evidence import MEDIA_TYPE, LaunchEvidence, pack_evidence, parse_evidence
from enarx.attest.sev._launch import MAX_DIGESTS, LaunchSession, parse_session, write_session
from enarx.attest.sev._platform import exported
from enarx.attest.sev._policy import SevPolicyRules, SevRules
from enarx.attest.sev._proven import looks_like_launch, pack_proven, parse_launch
from enarx.attest.sev._secret_table import build_secret_table, parse_secret_table
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
from enarx.attest.sev._tee import VERIFIER
from enarx.attest.sev._verify import SevDetail

__all__ = [
    "MAX_DIGESTS",
    "MEDIA_TYPE",
    "STRICT",
    "VERIFIER",
    "AmdCertificate",
    "GuestPolicy",
    "LaunchEvidence",
    "LaunchMeasure",
    "LaunchRefused",
    "LaunchSession",
    "Platform",
    "PlatformChain",
    "SecretPacket",
    "SessionKeys",
    "SevCertificate",
    "SevDetail",
    "SevPolicyRules",
    "SevRules",
    "VerifiedLaunch",
    "build_secret_table",
    "exported",
    "looks_like_launch",
    "owner_certificate",
    "pack_evidence",
    "pack_policy",
    "pack_proven",
    "pack_secret",
    "parse_amd_certificate",
    "parse_certificate",
    "parse_chain",
    "parse_evidence",
    "parse_launch",
    "parse_launch_measure",
    "parse_secret_table",
    "parse_session",
    "prepare_session",
    "verify_chain",
    "write_session",
]
