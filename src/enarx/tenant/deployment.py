"""From a package and a host to a result, in order; docs/spec/session.md is the protocol.

1. Choose a TEE that both the host has and the tenant's policy accepts.
2. Have a keep launched; on a pre-boot TEE judge the launch before its secret is given.
3. Connect to the keep, challenge it, and judge its evidence.
4. Only now read the secrets; deliver; judge the evidence of the locked keep.
5. Run it, and carry input and output to the end, or leave it running.

Nothing of what the host says decides anything. What fails ends the keep.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enarx.api import agent as api
from enarx.api.keep_image import Image
from enarx.api.tls_roots import machine_roots
from enarx.api.vm_image import VmImage
from enarx.attest import Claims, Collateral, Tee
from enarx.tcb.binding import NONCE_BYTES
from enarx.tcb.errors import EnarxError, ProtocolViolation, Unavailable
from enarx.tcb.session import AuditLog, AuditRecord, Life, Move, Stream, TenantSession
from enarx.tcb.workload import Config, Job, Limits, Outcome, Secret, parse_config
from enarx.tenant.agent_calls import HostAddress, HostMisbehaved, printable
from enarx.tenant.agent_client import AgentClient
from enarx.tenant.audit import AuditFile
from enarx.tenant.channel import Channel, ChannelLost
from enarx.tenant.conversation import Conversation
from enarx.tenant.credentials import Credential, Credentials
from enarx.tenant.difference import is_expected, name_difference
from enarx.tenant.endorsement import CollateralChoice, CollateralFrom, collateral_for, read_platform
from enarx.tenant.image import installed_image
from enarx.tenant.judge import Judge, Verdict
from enarx.tenant.last_word import add_last_word
from enarx.tenant.launch import Prepared, prepare
from enarx.tenant.package import Package, read_package
from enarx.tenant.reference import KeepImage, read_keep_image
from enarx.tenant.secret_source import SecretSource, check_names, read_secrets
from enarx.tenant.steps import Observer, Step, What, Who, nobody
from enarx.tenant.streams import Input, Interrupt, Output, captured, sink_of, source_of
from enarx.tenant.upgrade import open_channel
from enarx.tenant.verification import Trust

PRE_BOOT: Final = frozenset({Tee.SEV, Tee.SEV_ES, Tee.PEF})
"""What attests before boot: the launch is judged, and the keep answers by a secret that the launch got."""
BY_NAME: Final = frozenset({Tee.SEV, Tee.SEV_ES, Tee.TPM})
"""What is taken only when it is asked for: with SEV the host can change memory, without ES read registers; a TPM
encrypts nothing. Otherwise a host with something better could choose them."""
FAREWELL_S: Final = 5.0
"""How long the host may take to end a keep that we give up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a deployment ended."""

    outcome: Outcome
    keep: str
    verdicts: tuple[Verdict, ...]
    """Of the empty keep and of the locked one."""
    stdout: bytes = field(default=b"", repr=False)
    """What the workload wrote, unless it went elsewhere."""
    stderr: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """All that a tenant says about one deployment."""

    package: Package
    host: HostAddress
    trust: Trust
    image: KeepImage
    secrets: tuple[Secret | SecretSource, ...] = field(default=(), repr=False)
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    limits: Limits = field(default_factory=Limits)
    threads: bool = False
    tee: str = api.ANY
    collateral: CollateralChoice = CollateralFrom.HOST
    observer: Observer = nobody
    audit: AuditFile | None = None
    interrupt: Interrupt | None = None

    def run(self, stdin: Input = None, stdout: Output = None, stderr: Output = None) -> Result:
        """Deploy and stay until the end. Raises ``EnarxError``."""
        sinks = {Stream.STDOUT: sink_of(stdout), Stream.STDERR: sink_of(stderr)}
        with _Undertaking(self) as it, it.locked() as conversation:
            start = conversation.session.attach() + conversation.session.run()
            it.started()
            ended = conversation.stream(source_of(stdin), sinks, start=start)
            if ended is None:
                raise ProtocolViolation("the conversation ended before the workload")
            it.ended(ended.outcome, ended.audit)
        return Result(
            outcome=ended.outcome,
            keep=it.keep.id,
            verdicts=tuple(it.judge.verdicts),
            stdout=captured(sinks[Stream.STDOUT]),
            stderr=captured(sinks[Stream.STDERR]),
        )

    def leave(self, credentials: Credentials) -> Credential:
        """Deploy, start, and leave it running; the way back is in ``credentials`` first. Raises ``EnarxError``."""
        with _Undertaking(self) as it, it.locked() as conversation:
            credential = it.credential()
            credentials.add(credential)
            try:
                conversation.run()
                conversation.detach()
            except BaseException:
                credentials.remove(credential)
                raise
            it.started()
            it.left()
        return credential


class _Undertaking:
    """One deployment on its way. Leaving it with an error ends the keep."""

    def __init__(self, plan: Deployment) -> None:
        self._plan = plan
        self._key = Ed25519PrivateKey.generate()
        self._life = Life(AuditLog())
        self._agent = AgentClient(plan.host)
        self._prepared: Prepared | None = None
        self._kept: api.KeepInfo | None = None
        self._left = False

    def __enter__(self) -> _Undertaking:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is not None:
                reason = str(error) if isinstance(error, EnarxError) else type(error).__name__
                if isinstance(error, ChannelLost) and self._kept is not None:
                    add_last_word(error, self._plan.host, self._kept.id)
                self._abandon()  # first: what cannot be told or recorded must not keep it alive
                self.tell(Who.TENANT, What.STOPPED, f"given up: {reason}")
            if self._plan.audit is not None:
                self._plan.audit.life(self._life.audit.records)
                if not self._left:
                    self._plan.audit.disclose()
        finally:
            self._agent.close()

    @property
    def keep(self) -> api.KeepInfo:
        """The keep, as the host describes it."""
        assert self._kept is not None  # noqa: S101 -- it is asked for after the launch
        return self._kept

    def tell(self, who: Who, what: What, text: str, facts: Mapping[str, str] | None = None) -> None:
        """Tell the observer, and the audit record."""
        self._tell(Step(who=who, what=what, text=text, facts=facts or {}))

    @contextlib.contextmanager
    def locked(self) -> Iterator[Conversation]:
        """Give the conversation with a keep that holds our workload, was judged twice, and does not run yet."""
        plan = self._plan
        check_names(plan.secrets)
        self._job()  # whatever is wrong with it should not cost a launch
        self._launch()
        conversation = self._connect()
        try:
            conversation.challenge()
            job = self._job(read_secrets(plan.secrets))
            conversation.deliver(job)
            verdict = self.judge.verdicts[-1]
            digests = {
                "workload": verdict.binding.workload.hex(),
                "configuration": verdict.binding.configuration.hex(),
            }
            count = f"{len(job.secrets)} secret{'' if len(job.secrets) == 1 else 's'}"
            text = f"delivered {job.size} bytes and {count}; the keep is locked"
            self.tell(Who.TENANT, What.DELIVERED, text, digests)
            yield conversation
        finally:
            conversation.close()

    def started(self) -> None:
        """Tell that it runs."""
        self.tell(Who.TENANT, What.STARTED, "the workload runs")

    def left(self) -> None:
        """Tell that it goes on without us."""
        self._left = True
        self.tell(Who.TENANT, What.STOPPED, "left running")

    def ended(self, outcome: Outcome, records: Sequence[AuditRecord]) -> None:
        """Tell how it ended."""
        facts = {"ending": outcome.ending.value, "code": str(outcome.code)}
        text = f"the workload has ended: {outcome.ending.value}, {outcome.code}"
        self.tell(Who.KEEP, What.ENDED, text, facts)
        if self._plan.audit is not None:
            self._plan.audit.keep_log(records)

    def credential(self) -> Credential:
        """Give the way back to this keep."""
        binding = self.judge.verdicts[-1].binding
        kept = None if self._prepared is None else self._prepared.kept
        image = self._plan.image
        return Credential(
            host=self._plan.host.url,
            keep=self.keep.id,
            tee=self.keep.tee,
            instance=binding.instance,
            workload=binding.workload,
            configuration=binding.configuration,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            key=self._key.private_bytes_raw(),
            launch=b"" if kept is None else kept.pack(),
            image=str(image.directory.absolute()) if isinstance(image, VmImage) else "",
            record="" if self._plan.audit is None else str(self._plan.audit.directory.absolute()),
        )

    def _tell(self, step: Step) -> None:
        if self._plan.audit is not None:
            self._plan.audit.step(step)
        self._plan.observer(step)

    def _job(self, secrets: Iterable[Secret] = ()) -> Job:
        plan = self._plan
        config = Config() if plan.package.config is None else parse_config(plan.package.config)
        return plan.package.job(
            arguments=plan.arguments,
            environment=plan.environment,
            secrets=secrets,
            limits=plan.limits,
            threads=plan.threads,
            roots=machine_roots(config),
        )

    def _launch(self) -> None:
        """Have a keep launched on a TEE that both sides accept."""
        plan = self._plan
        tee = self._choose()
        told = self._endorsements(tee) if self._needs_host(tee) else Collateral.none()
        prepared = prepare(
            tee,
            told | plan.collateral if isinstance(plan.collateral, Collateral) else told,
            plan.image,
            anchors=plan.trust.anchors,
            policy=plan.trust.policy,
            now=datetime.now(UTC),
            told=self._host_image,
        )
        self._prepared = prepared
        choice = plan.collateral
        if choice is CollateralFrom.VENDOR and tee in PRE_BOOT:
            choice = CollateralFrom.HOST  # no service has the platform's own keys
        if isinstance(plan.image, VmImage):
            self.tell(
                Who.TENANT, What.ASKED, f"asked for a virtual machine on {tee.value}, which has to boot"
            )
        kept = self._kept = self._agent.create(tee.value, prepared.tenant)
        facts = {"keep": kept.id, "tee": printable(kept.tee), "backend": printable(kept.backend)}
        facts["emulated"] = "yes" if kept.emulated else "no"
        self.tell(
            Who.HOST, What.CREATED, f"launched {facts['tee']} keep {kept.id} on {facts['backend']}", facts
        )
        if kept.tee != tee.value:
            raise HostMisbehaved(f"asked for {tee.value}, the host says it launched {facts['tee']!a}")
        self.judge = Judge(
            trust=plan.trust,
            tee=tee.value,
            collateral=collateral_for(choice, told),
            clock=lambda: datetime.now(UTC),
            tell=self._tell,
            whole=prepared.evidence,
            launch=lambda: prepared.session,
            keeper=plan.audit,
            difference=self._difference,
        )
        packet = prepared.answer(kept.launch)
        if packet:
            self._agent.secret(kept.id, packet)
            self.tell(Who.TENANT, What.RELEASED, "accepted the launch, and gave it its secret")

    def _choose(self) -> Tee:
        """Take what was asked for, or else the first of the host's TEEs that the policy accepts, and that is strong."""
        plan = self._plan
        accepted = {tee.value: tee for tee in plan.trust.policy.sections}
        if plan.tee != api.ANY:
            if plan.tee not in accepted:
                hint = f"it accepts {', '.join(accepted)}"
                if isinstance(plan.image, VmImage):
                    hint += "; enarx image show says why an image has no measurement for a TEE"
                raise Unavailable(f"the policy accepts no {plan.tee[:40]}", hint=hint)
            return accepted[plan.tee]
        offered = [it.tee for it in self._agent.info().backends if it.ready]
        for tee in offered:
            if tee in accepted and accepted[tee] not in BY_NAME:
                return accepted[tee]
        raise _nothing_to_take(offered, accepted)

    def _needs_host(self, tee: Tee) -> bool:
        return self._plan.collateral is CollateralFrom.HOST or tee in PRE_BOOT

    def _endorsements(self, tee: Tee) -> Collateral:
        found = read_platform(self._agent.platform(tee.value), tee.value)
        count = len(found.certificates) + len(found.crls) + len(found.documents)
        self.tell(Who.HOST, What.ENDORSED, f"sent {count} items of collateral, which are verified later")
        return found

    def _difference(self, claims: Claims) -> str:
        """Name what is different about a keep whose evidence is genuine and was refused."""
        found = {**claims.measurements, "measurement": claims.measurement}
        image = self._plan.image
        if is_expected(image, claims.tee, found):
            return ""
        return name_difference(image, claims.tee, found, self._host_image())

    def _host_image(self) -> api.HostImage | None:
        """Ask the host what it launches; an older one does not say."""
        with contextlib.suppress(EnarxError):
            return self._agent.image()
        return None

    def _connect(self) -> Conversation:
        """Connect to whatever is behind the host's door; its evidence comes next."""
        channel = Channel(open_channel(self._plan.host, self.keep.id))
        facts = {"key": channel.keep_key.hex(), "group": channel.group}
        agreed = f"TLS 1.3 with {channel.group}" if channel.group else "TLS 1.3"
        text = f"{agreed}, key {facts['key'][:16]}…, not verified yet"
        self.tell(Who.KEEP, What.CONNECTED, text, facts)
        self._life.move(Move.BOOT)
        session = TenantSession(
            self._life,
            key=self._key,
            nonce=os.urandom(NONCE_BYTES),
            exporter=channel.exporter,
            keep_key=channel.keep_key,
        )
        return Conversation(channel, session, self.judge, interrupt=self._plan.interrupt)

    def _abandon(self) -> None:
        """Have the keep ended; if the host does not, it ends by itself when nobody comes."""
        if self._kept is not None:
            with contextlib.suppress(EnarxError), AgentClient(self._plan.host, timeout_s=FAREWELL_S) as agent:
                agent.stop(self._kept.id)


def _nothing_to_take(offered: Sequence[str], accepted: Mapping[str, Tee]) -> Unavailable:
    """Make the error of a host that has nothing that is taken unasked."""
    names = ", ".join(map(printable, offered)) or "nothing"
    weaker = [tee.value for tee in BY_NAME if tee.value in offered]
    if any(name in accepted for name in weaker):
        what, hint = "which is not taken unasked", "it protects less than others"
    else:
        what, hint = "which the policy does not accept", f"the policy accepts {', '.join(accepted)}"
    if weaker:
        hint += f"; to have it all the same, ask for it by name: --tee {min(weaker)}"
    return Unavailable(f"the host offers {names}, {what}", hint=hint)


def deploy(
    package: Package | str | Path,
    host: HostAddress | str,
    *,
    trust: Trust | None = None,
    image: KeepImage | Path | None = None,
    secrets: Iterable[Secret | SecretSource] = (),
    arguments: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    threads: bool = False,
    tee: str = api.ANY,
    collateral: CollateralChoice = CollateralFrom.HOST,
    stdin: Input = None,
    stdout: Output = None,
    stderr: Output = None,
    observer: Observer = nobody,
    audit: AuditFile | None = None,
    interrupt: Interrupt | None = None,
) -> Result:
    """Deploy ``package`` on ``host`` and give the result when the workload has ended. Raises ``EnarxError``.

    Without ``image``: the process keep of this release. Without ``trust``: exactly that image, and the vendors' roots.
    Output without a destination is in the result.
    """
    plan = plan_deployment(
        package,
        host,
        trust=trust,
        image=image,
        secrets=tuple(secrets),
        arguments=tuple(arguments),
        environment=tuple((environment or {}).items()),
        limits=limits or Limits(),
        threads=threads,
        tee=tee,
        collateral=collateral,
        observer=observer,
        audit=audit,
        interrupt=interrupt,
    )
    return plan.run(stdin, stdout, stderr)


def start(
    package: Package | str | Path,
    host: HostAddress | str,
    *,
    credentials: Credentials | None = None,
    trust: Trust | None = None,
    image: KeepImage | Path | None = None,
    secrets: Iterable[Secret | SecretSource] = (),
    arguments: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    threads: bool = False,
    tee: str = api.ANY,
    collateral: CollateralChoice = CollateralFrom.HOST,
    observer: Observer = nobody,
    audit: AuditFile | None = None,
    interrupt: Interrupt | None = None,
) -> Credential:
    """Deploy ``package`` and leave it running; the way back is kept in ``credentials``. Raises ``EnarxError``."""
    plan = plan_deployment(
        package,
        host,
        trust=trust,
        image=image,
        secrets=tuple(secrets),
        arguments=tuple(arguments),
        environment=tuple((environment or {}).items()),
        limits=limits or Limits(),
        threads=threads,
        tee=tee,
        collateral=collateral,
        observer=observer,
        audit=audit,
        interrupt=interrupt,
    )
    return plan.leave(credentials or Credentials())


def plan_deployment(
    package: Package | str | Path,
    host: HostAddress | str,
    *,
    trust: Trust | None = None,
    image: KeepImage | Path | None = None,
    **options: Any,
) -> Deployment:
    """Make a plan: read the package, find the image. ``options`` are the other fields of ``Deployment``."""
    image = expected_image(image)
    return Deployment(
        package=package
        if isinstance(package, Package)
        else read_package(Path(package), limits=options.get("limits")),
        host=host if isinstance(host, HostAddress) else HostAddress.parse(host),
        trust=trust or Trust.release(image, tpm=options.get("tee") == Tee.TPM.value),
        image=image,
        **options,
    )


def expected_image(image: KeepImage | Path | None) -> KeepImage:
    """Give the image that a tenant expects: described, named by its path, or that of this release for process keeps.

    Raises ``Malformed``, ``Unavailable``.
    """
    if image is None:
        return release_image()
    return read_keep_image(image) if isinstance(image, Path) else image


@functools.cache
def release_image() -> Image:
    """Give the keep image of this installation, described once."""
    return installed_image()
