"""The tenant's part in launches that are attested before boot (SEV, SEV-ES, PEF); other TEEs need nothing of it.

A launch is prepared for one verified platform, its measurement is judged, and only then is a secret given to it. By
that secret the keep answers the challenges of sessions (docs/spec/session.md, 4.4).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from enarx.api.agent import HostImage
from enarx.attest import (
    AuthenticityOnly,
    Claims,
    Collateral,
    EvidenceRejected,
    Kind,
    Policy,
    Tee,
    TrustAnchors,
    Verifier,
)
from enarx.attest.checks import Ledger
from enarx.attest.launch import PreBoot
from enarx.attest.launch_proof import SECRET_BYTES
from enarx.attest.pef import SealedLaunch, find_machine
from enarx.attest.sev import (
    MAX_DIGESTS,
    STRICT,
    GuestPolicy,
    LaunchSession,
    SessionKeys,
    SevDetail,
    build_secret_table,
    exported,
    owner_certificate,
    pack_evidence,
    pack_policy,
    pack_secret,
    prepare_session,
    verify_chain,
)
from enarx.attest.sev import VERIFIER as SEV
from enarx.tcb.errors import EnarxError, Malformed, ProtocolViolation
from enarx.tcb.session import LAUNCH_GUID
from enarx.tcb.wire import decode, encode
from enarx.tenant.difference import name_cause, other_launches
from enarx.tenant.kept_launch import KeptLaunch
from enarx.tenant.reference import KeepImage, reference_values, sealed_digests

MAX_LAUNCH_BYTES: Final = 4096
Random = Callable[[int], bytes]
"""Gives so many random bytes."""


class Prepared(Protocol):
    """One launch that its tenant has prepared. For one launch: prepare another for the next."""

    @property
    def tenant(self) -> bytes:
        """What goes to the agent with the request for a keep."""

    @property
    def session(self) -> PreBoot | None:
        """The argument ``launch`` of ``Verifier.verify``; secret. Nothing where a TEE attests after boot."""

    def answer(self, launch: bytes) -> bytes:
        """Judge what the platform says of the launch and give the secret packet; nothing where none is needed.

        Raises ``EvidenceRejected`` for a launch to which nothing may be given, ``Malformed``, ``ProtocolViolation``
        when it is called twice.
        """

    def evidence(self, shown: bytes) -> bytes:
        """Give the whole evidence for ``Verifier.verify``; ``shown`` is what the keep put into its attestation."""

    @property
    def kept(self) -> KeptLaunch | None:
        """What to keep for later sessions with this keep; nothing before ``answer``, or after boot."""


def prepare(
    tee: Tee,
    platform: Collateral,
    image: KeepImage,
    *,
    anchors: TrustAnchors,
    policy: Policy | AuthenticityOnly,
    now: datetime,
    random: Random = os.urandom,
    told: Callable[[], HostImage | None] = lambda: None,
) -> Prepared:
    """Prepare a launch of ``image`` on a platform, known by what its host says of it and verified here.

    ``policy`` judges a launch of SEV before it gets its secret; ``told`` gives what the host says that it launches, to
    name what is different about one that is refused. Raises ``EvidenceRejected``, ``CollateralMissing`` when
    the host sent no keys of the platform, ``Malformed``.
    """
    match tee:
        case Tee.SEV | Tee.SEV_ES:
            return _Sev(
                tee, platform, image, anchors=anchors, policy=policy, now=now, random=random, told=told
            )
        case Tee.PEF:
            return _Pef(platform, image, anchors=anchors, random=random)
        case _:
            return _PostBoot()


class _PostBoot:
    """Nothing to prepare: the keep's own evidence says all."""

    tenant = b""
    session = None
    kept = None

    def answer(self, launch: bytes) -> bytes:
        """Expect nothing and give nothing."""
        return _nothing(launch)

    def evidence(self, shown: bytes) -> bytes:
        """It is whole."""
        return shown


class _Pef:
    """A secret sealed for one machine and one image; the machine's ultravisor does the rest."""

    def __init__(
        self, platform: Collateral, image: KeepImage, *, anchors: TrustAnchors, random: Random
    ) -> None:
        keys = list(platform.of(Kind.PUBLIC_KEY))
        ledger = Ledger()
        if not keys:
            ledger.missing(
                "pef.machine", "the public key of the machine", advice="ask who runs the machine for it"
            )
        trusted = [key for key in keys if find_machine(anchors, key) is not None]
        ledger.require(
            "pef.machine",
            bool(trusted),
            expected="a machine whose public key is trusted",
            found=keys[0],
            advice="IBM publishes no root: name the machine's public key as one (--root)",
        )
        pem = load_der_public_key(trusted[0]).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        blob, self.session = SealedLaunch.seal(sealed_digests(image), machine=pem, random=random)
        self.kept = KeptLaunch(session=self.session)
        self.tenant = encode({"esm_blob": blob})

    def answer(self, launch: bytes) -> bytes:
        """Expect nothing and give nothing: the secret is in the blob."""
        return _nothing(launch)

    def evidence(self, shown: bytes) -> bytes:
        """The proof is all of it."""
        return self.kept.evidence(shown)


class _Sev:
    """A session with one platform, by which its measurement is judged and the secret is packed."""

    def __init__(
        self,
        tee: Tee,
        platform: Collateral,
        image: KeepImage,
        *,
        anchors: TrustAnchors,
        policy: Policy | AuthenticityOnly,
        now: datetime,
        random: Random,
        told: Callable[[], HostImage | None],
    ) -> None:
        ledger = Ledger()
        self._certificates, chain = exported(platform, ledger)
        pdh = verify_chain(chain, anchors=anchors, ledger=ledger).pdh
        self._collateral, self._now, self._random = platform, now, random
        self._tee, self._image, self._told, self._anchors = tee, image, told, anchors
        self._verifier = Verifier(tees=(SEV,), anchors=anchors, policy=policy)
        self._policy = pack_policy(STRICT | GuestPolicy.ES if tee is Tee.SEV_ES else STRICT)
        self._keys = SessionKeys(tek=random(16), tik=random(16))
        owner = ec.generate_private_key(pdh.curve)
        session = prepare_session(
            pdh, owner=owner, keys=self._keys, policy=self._policy, nonce=random(16), iv=random(16)
        )
        digests = (reference_values(image, tee)["measurement"],)
        self.session = LaunchSession.prepared(pdh, tik=self._keys.tik, session=session, digests=digests)
        self.tenant = encode(
            {
                "policy": self._policy,
                "certificate": owner_certificate(owner.public_key()),
                "session": session,
            }
        )
        self.kept: KeptLaunch | None = None

    def answer(self, launch: bytes) -> bytes:
        """Judge the measurement, and pack the secret for it."""
        if self.kept is not None:
            raise ProtocolViolation("this launch has been answered", hint="prepare another one")
        document = self._evidence(launch)
        try:
            claims = self._verified(self._verifier, document, self.session)
        except EvidenceRejected as error:
            if error.check.name == "sev.measure":
                with contextlib.suppress(EnarxError):  # what cannot be named must not hide the refusal
                    error.hint = self._difference(document) or error.hint
            raise
        assert isinstance(claims.detail, SevDetail)  # noqa: S101 -- what the verifier of SEV makes
        secret = self._random(SECRET_BYTES)
        table = build_secret_table({UUID(LAUNCH_GUID): secret})
        packet = pack_secret(claims.detail.launch, table, keys=self._keys, iv=self._random(16))
        self.session = self.session.released(claims.detail.launch, secret)
        self.kept = KeptLaunch(session=self.session, document=document)
        return encode({"header": packet.header, "payload": packet.payload})

    def evidence(self, shown: bytes) -> bytes:
        """The launch and the proof."""
        if self.kept is None:
            raise ProtocolViolation("a keep answers whose launch was not accepted")
        return self.kept.evidence(shown)

    def _verified(self, verifier: Verifier, document: bytes, session: LaunchSession) -> Claims:
        return verifier.verify(
            document, collateral=self._collateral, binding=session.binding, now=self._now, launch=session
        )

    def _difference(self, document: bytes) -> str:
        """Find the launch that this measurement is of, which only its owner can: it is a MAC."""
        told = self._told()
        others: dict[bytes, str] = {}
        for it in other_launches(self._image, self._tee, told):
            others.setdefault(it.values["measurement"], it.text)  # the likeliest first
        if others:
            verifier = Verifier(tees=(SEV,), anchors=self._anchors, policy=AuthenticityOnly())
            session = replace(self.session, digests=tuple(others)[:MAX_DIGESTS])
            with contextlib.suppress(EvidenceRejected):
                return others[self._verified(verifier, document, session).measurement]
        return name_cause(self._image, self._tee, {}, told)

    def _evidence(self, launch: bytes) -> bytes:
        match decode(launch, max_bytes=MAX_LAUNCH_BYTES):
            case {"measure": bytes() as measure, "api_major": int() as major, "api_minor": int() as minor,
                  "build": int() as build, **rest} if not rest:  # fmt: skip
                return pack_evidence(
                    self._certificates, api=(major, minor), build=build, policy=self._policy, measure=measure
                )
        raise Malformed("launch: expected a map of measure, api_major, api_minor and build")


def _nothing(launch: bytes) -> bytes:
    if launch:
        raise Malformed(
            "launch: this TEE attests after boot or seals its secrets, and says nothing at launch"
        )
    return b""
