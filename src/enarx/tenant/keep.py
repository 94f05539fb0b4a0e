"""A keep that was left running: its tenant comes back, has it prove itself anew, and listens or ends it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from enarx.api.agent import KeepInfo
from enarx.attest import Collateral
from enarx.tcb.binding import NONCE_BYTES
from enarx.tcb.errors import ProtocolViolation
from enarx.tcb.session import AuditLog, Ended, Life, Stream, TenantSession, resumed_life
from enarx.tcb.workload import Outcome
from enarx.tenant.agent_calls import HostAddress, NoSuchKeep
from enarx.tenant.agent_client import AgentClient
from enarx.tenant.audit import AuditFile
from enarx.tenant.channel import Channel, ChannelLost
from enarx.tenant.conversation import Conversation
from enarx.tenant.credentials import Credential
from enarx.tenant.deployment import Result
from enarx.tenant.endorsement import CollateralChoice, CollateralFrom, collateral_for, read_platform
from enarx.tenant.judge import Judge, KeepRejected, Verdict
from enarx.tenant.kept_launch import parse_kept
from enarx.tenant.last_word import add_last_word
from enarx.tenant.steps import Observer, Step, What, Who, nobody
from enarx.tenant.streams import Input, Interrupt, Output, captured, sink_of, source_of
from enarx.tenant.upgrade import open_channel
from enarx.tenant.verification import Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """One detached keep. Every method connects, challenges it and judges it first. Raises ``EnarxError``."""

    credential: Credential
    host: HostAddress
    trust: Trust
    collateral: CollateralChoice = CollateralFrom.HOST
    observer: Observer = nobody
    audit: AuditFile | None = None
    interrupt: Interrupt | None = field(default=None, repr=False)

    @classmethod
    def of(cls, credential: Credential, trust: Trust, *, host: HostAddress | None = None) -> Keep:
        """Give the keep of a credential; ``host`` where the agent wants a token or has moved."""
        return cls(credential=credential, host=host or HostAddress.parse(credential.host), trust=trust)

    def attach(self, stdin: Input = None, stdout: Output = None, stderr: Output = None) -> Result:
        """Take output from the beginning on, as far as the keep still has it, and stay until the end."""
        sinks = {Stream.STDOUT: sink_of(stdout), Stream.STDERR: sink_of(stderr)}
        with self._conversation() as (conversation, judge):
            source = None if stdin is None else source_of(stdin)
            ended = conversation.stream(source, sinks, start=conversation.session.attach())
            return self._result(ended, judge, captured(sinks[Stream.STDOUT]), captured(sinks[Stream.STDERR]))

    def wait(self) -> Outcome:
        """Stay until the end and leave out what it writes."""
        return self.attach(stdout=lambda data: None, stderr=lambda data: None).outcome

    def logs(self, stdout: Output = None, stderr: Output = None) -> Result | None:
        """Take what it has written until now; give the result if it has ended.

        A keep tells its end once: whoever has heard it is the last.
        """
        sinks = {Stream.STDOUT: sink_of(stdout), Stream.STDERR: sink_of(stderr)}
        with self._conversation() as (conversation, judge):
            ended = conversation.stream(None, sinks, start=conversation.session.attach(), until_now=True)
            if ended is None:
                return None
            return self._result(ended, judge, captured(sinks[Stream.STDOUT]), captured(sinks[Stream.STDERR]))

    def stop(self) -> Outcome:
        """End the workload and hear how it ended."""
        sinks = dict.fromkeys(Stream, sink_of(lambda data: None))
        with self._conversation() as (conversation, judge):
            start = conversation.session.attach() + conversation.session.stop()
            ended = conversation.stream(None, sinks, start=start)
            return self._result(ended, judge, b"", b"").outcome

    def discard(self) -> None:
        """Have the host end it, without a word to the keep: what a host can always do."""
        with AgentClient(self.host) as agent, contextlib.suppress(NoSuchKeep):
            agent.stop(self.credential.keep)
        self._tell(Who.TENANT, What.STOPPED, "the host was told to end the keep")

    def evidence(self) -> Verdict:
        """Have it prove itself anew, and give the verdict with evidence and collateral."""
        with self._conversation() as (_, judge):
            return judge.verdicts[-1]

    def info(self) -> KeepInfo:
        """Ask the host what it knows; nobody vouches for that."""
        with AgentClient(self.host) as agent:
            return agent.keep(self.credential.keep)

    @contextlib.contextmanager
    def _conversation(self) -> Iterator[tuple[Conversation, Judge]]:
        """Connect, and go on only with the very keep that the credential is for."""
        judge = self._judge()
        try:
            channel = Channel(open_channel(self.host, self.credential.keep))
        except NoSuchKeep as gone:
            raise NoSuchKeep(
                f"keep {self.credential.keep} is gone: its host knows it no more",
                hint="it ended, or with it the host's agent or machine; enarx keep stop --force forgets it",
                status=gone.status,
            ) from None
        life = resumed_life(Life(AuditLog()))
        session = TenantSession(
            life,
            key=self.credential.private_key(),
            nonce=os.urandom(NONCE_BYTES),
            exporter=channel.exporter,
            keep_key=channel.keep_key,
            resumed=(self.credential.workload, self.credential.configuration),
        )
        conversation = Conversation(channel, session, judge, interrupt=self.interrupt)
        try:
            conversation.challenge()
            if session.instance != self.credential.instance:
                raise KeepRejected("this is another keep than the one that was left running")
            yield conversation, judge
        except ChannelLost as lost:
            add_last_word(lost, self.host, self.credential.keep)
            raise
        finally:
            conversation.close()
            if self.audit is not None:
                self.audit.life(life.audit.records)

    def _judge(self) -> Judge:
        choice, told = self.collateral, Collateral.none()
        if choice is CollateralFrom.VENDOR and self.credential.launch:
            choice = CollateralFrom.HOST  # no service has the platform's own keys
        if choice is CollateralFrom.HOST:
            with AgentClient(self.host) as agent:
                told = read_platform(agent.platform(self.credential.tee), self.credential.tee)
        kept = parse_kept(self.credential.launch) if self.credential.launch else None
        return Judge(
            trust=self.trust,
            tee=self.credential.tee,
            collateral=collateral_for(choice, told),
            clock=lambda: datetime.now(UTC),
            tell=self._told,
            whole=bytes if kept is None else kept.evidence,
            launch=lambda: None if kept is None else kept.session,
            keeper=self.audit,
        )

    def _result(self, ended: Ended | None, judge: Judge, stdout: bytes, stderr: bytes) -> Result:
        if ended is None:
            raise ProtocolViolation("the conversation ended before the workload")
        outcome = ended.outcome
        self._tell(Who.KEEP, What.ENDED, f"the workload has ended: {outcome.ending.value}, {outcome.code}")
        if self.audit is not None:
            self.audit.keep_log(ended.audit)
            self.audit.disclose()
        verdicts = tuple(judge.verdicts)
        return Result(
            outcome=outcome, keep=self.credential.keep, verdicts=verdicts, stdout=stdout, stderr=stderr
        )

    def _tell(self, who: Who, what: What, text: str) -> None:
        self._told(Step(who=who, what=what, text=text))

    def _told(self, step: Step) -> None:
        if self.audit is not None:
            self.audit.step(step)
        self.observer(step)


def is_over(keep: Keep) -> bool:
    """Say whether the host knows the keep no more, or says that it has ended. Raises ``EnarxError``."""
    try:
        return keep.info().state.value == "ended"
    except NoSuchKeep:
        return True
