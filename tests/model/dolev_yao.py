"""A small model checker: every run of tenants, keeps and a host that owns the network, up to a bound.

Cryptography is symbolic (Dolev and Yao): terms are tuples, and the host can build exactly what follows from what it
knows. It may end TLS itself with any key it has, pass connections on untouched, open connections of its own to keeps,
and send anything that it can build. It cannot forge reports of the hardware, signatures of keys that it lacks, or
look into a TLS session whose two ends are others.

What a *binding* commits to is a parameter: a set of names out of ``FIELDS``. The question is always the same: can the
host learn a secret that a tenant gives only to a keep whose evidence it has accepted?
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

Term = tuple[object, ...]
HOST: Final = "host"
FIELDS: Final = ("nonce", "exporter", "key", "instance", "tenant", "stage")
"""What the binding of docs/spec/session.md commits to before a workload is there."""
OURS: Final = frozenset(FIELDS)
GENUINE: Final = "image"
FOREIGN: Final = "other image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Who there is, and what the host knows from the beginning."""

    binding: frozenset[str]
    keeps: tuple[tuple[str, str], ...] = (("A", GENUINE), ("B", GENUINE))
    """Name and image of each keep on genuine hardware."""
    tenants: tuple[str, ...] = ("T",)
    leaked: frozenset[str] = frozenset()
    """Keeps whose TLS keys the host has got hold of."""
    proves_tenant: bool = True
    """Whether a challenge carries a signature of the tenant's key over this session."""
    fresh: bool = True
    """Whether each tenant makes a new nonce for each session."""
    max_sessions: int = 3
    """The shortest attacks need two; with four the search takes a minute and finds no other."""


@dataclass(frozen=True, slots=True)
class Session:
    """One TLS session. Only its two ends know what flows, and its exporter."""

    number: int
    client: str
    server: str
    key: str
    """Whose key the server has shown."""


@dataclass(frozen=True, slots=True)
class World:
    """One moment: the sessions, what the host knows, and which session each tenant delivered in."""

    sessions: tuple[Session, ...] = ()
    knows: frozenset[Term] = frozenset()
    delivered: tuple[tuple[str, int], ...] = ()
    history: tuple[str, ...] = ()

    def same(self) -> tuple[object, ...]:
        """What makes two moments the same: not how they came about."""
        return self.sessions, self.knows, self.delivered


def attack(model: Model) -> tuple[str, ...] | None:
    """Search all runs, the shortest first; give the steps by which the host learns a secret, or nothing."""
    start = World(knows=frozenset({("nonce of", HOST, 0)}))
    seen = {start.same()}
    waiting = deque([start])
    while waiting:
        world = waiting.popleft()
        for after in steps(model, world):
            if any(term[0] == "secret" for term in after.knows):
                return after.history
            if after.same() not in seen:
                seen.add(after.same())
                waiting.append(after)
    return None


def steps(model: Model, world: World) -> Iterator[World]:
    """Give every moment that can come next."""
    if len(world.sessions) < model.max_sessions:
        yield from _connections(model, world)
    yield from _challenges(model, world)
    yield from _evidence(model, world)


def _connections(model: Model, world: World) -> Iterator[World]:
    number = len(world.sessions)
    for tenant in model.tenants:
        if any(session.client == tenant for session in world.sessions):
            continue
        for keep, _ in model.keeps:
            yield _joined(world, Session(number, tenant, keep, keep), f"{tenant} reaches {keep}")
        for key in (HOST, *sorted(model.leaked)):
            after = _joined(
                world, Session(number, tenant, HOST, key), f"{tenant} reaches the host with {key}'s key"
            )
            yield replace(after, knows=after.knows | _challenge(model, tenant, number))
    for keep, _ in model.keeps:
        yield _joined(world, Session(number, HOST, keep, keep), f"the host connects to {keep}")


def _joined(world: World, session: Session, step: str) -> World:
    return replace(world, sessions=(*world.sessions, session), history=(*world.history, step))


def _challenge(model: Model, tenant: str, session: int) -> frozenset[Term]:
    """What a tenant sends first: its nonce, and its signature over the session."""
    nonce = _nonce(model, tenant, session)
    return frozenset({nonce, ("signature", tenant, nonce, session)})


def _nonce(model: Model, tenant: str, session: int) -> Term:
    return ("nonce of", tenant, session if model.fresh else 0)


def _challenges(model: Model, world: World) -> Iterator[World]:
    """The host asks keeps for evidence, in sessions of its own, with nonces that it knows."""
    nonces = [term for term in world.knows if term[0] == "nonce of"]
    for session in world.sessions:
        if session.client != HOST:
            continue
        for nonce in nonces:
            for tenant in (HOST, *model.tenants):
                signature = ("signature", tenant, nonce, session.number)
                if model.proves_tenant and tenant != HOST and signature not in world.knows:
                    continue
                report = _report(model, session.server, session.number, nonce, tenant)
                if report not in world.knows:
                    step = f"the host has {session.server} attest for {tenant} with {nonce[1]}'s nonce"
                    yield replace(world, knows=world.knows | {report}, history=(*world.history, step))


def _report(model: Model, keep: str, session: int, nonce: Term, tenant: str) -> Term:
    """What genuine hardware signs: the image it measured, and what the binding commits to."""
    image = dict(model.keeps)[keep]
    facts: dict[str, object] = {
        "nonce": nonce,
        "exporter": session,
        "key": keep,
        "instance": keep,
        "tenant": tenant,
        "stage": "empty",
    }
    return ("report", image, *((name, facts[name]) for name in FIELDS if name in model.binding))


def _evidence(model: Model, world: World) -> Iterator[World]:
    """A tenant gets evidence: from the keep at the other end, or from the host whatever the host knows."""
    for session in world.sessions:
        tenant = session.client
        if tenant == HOST or (tenant, session.number) in world.delivered:
            continue
        nonce = _nonce(model, tenant, session.number)
        if session.server != HOST:
            offered = {_report(model, session.server, session.number, nonce, tenant)}
        else:
            offered = {term for term in world.knows if term[0] == "report"}
        for report in offered:
            if not _accepts(model, session, nonce, tenant, report):
                continue
            learned = {("secret", tenant)} if session.server == HOST else set()
            step = f"{tenant} accepts and delivers to {session.server}"
            yield replace(
                world,
                delivered=(*world.delivered, (tenant, session.number)),
                knows=world.knows | learned,
                history=(*world.history, step),
            )


def _accepts(model: Model, session: Session, nonce: Term, tenant: str, report: Term) -> bool:
    """What a tenant compares: the image, and every fact that it knows itself; of the instance it only hears."""
    expected: dict[str, object] = {
        "nonce": nonce,
        "exporter": session.number,
        "key": session.key,
        "tenant": tenant,
        "stage": "empty",
    }
    bound = [fact for fact in report[2:] if isinstance(fact, tuple)]
    return report[1] == GENUINE and all(expected.get(name, fact) == fact for name, fact in bound)
