"""The agent as a whole: settings in, one port out, and an orderly end."""

from __future__ import annotations

import asyncio
import resource
import signal
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from enarx.api.keep_image import read_image
from enarx.api.vm_image import read_vm_image
from enarx.host.agent._http import Shell
from enarx.host.agent._keeps import Keeps, Tell
from enarx.host.agent._routes import Routes
from enarx.host.agent._tenants import Accounts
from enarx.host.backend import Backend
from enarx.host.sallyport import Permissions
from enarx.tcb.errors import Malformed, Unavailable

PORT: Final = 7478
MAX_KEEPS: Final = 256
SWEEP_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 10.0
NOTHING: Final = Permissions(listen=frozenset(), connect=frozenset())


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one agent is run."""

    image: Path
    host: str = "127.0.0.1"
    port: int = PORT
    max_keeps: int = MAX_KEEPS
    accounts: Accounts = field(default_factory=Accounts)
    permissions: Permissions = NOTHING
    """What workloads may open on this machine."""
    certificate: Path | None = None
    """For TLS of the agent's own, which protects its accounts' tokens; the keeps' channels need none."""
    key: Path | None = None


class Agent:
    """One host agent."""

    def __init__(
        self,
        settings: Settings,
        backends: Sequence[Backend],
        tell: Tell = lambda keep, pid: None,
    ) -> None:
        """Load the image everywhere; ``tell`` learns of launches and ends, from any thread. Raises ``EnarxError``."""
        if not backends:
            raise Unavailable(
                "no backend is named", hint="--backend NAME=ARGUMENT, such as emulated=DIRECTORY"
            )
        self._settings = settings
        machine = settings.image.is_dir()  # an archive is the image of process keeps
        image = read_vm_image(settings.image) if machine else read_image(settings.image)
        for backend in backends:
            backend.prepare(settings.image)
        self._keeps = Keeps(
            backends,
            settings.image,
            accounts=settings.accounts,
            permissions=settings.permissions,
            max_keeps=settings.max_keeps,
            tell=tell,
        )
        self.image = image
        self.backends = tuple(backends)
        self._routes = Routes(self._keeps, settings.accounts, image=image)
        self._shell = Shell(self._routes, tls=_tls(settings))

    async def serve(self, listening: Callable[[str], None] = lambda url: None) -> None:
        """Serve until SIGTERM or SIGINT, then end every keep. Raises ``Unavailable``."""
        settings = self._settings
        raise_descriptor_limit()
        try:
            server = await self._shell.start(settings.host, settings.port)
        except OSError as error:
            hint = "choose another with --listen"
            raise Unavailable(f"{settings.host}:{settings.port}: {error.strerror}", hint=hint) from None
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        sweeper = asyncio.create_task(self._sweep())
        host, port = server.sockets[0].getsockname()[:2]
        listening(f"{'https' if settings.certificate else 'http'}://{_bracketed(host)}:{port}")
        try:
            await ended.wait()
        finally:
            sweeper.cancel()
            server.close()
            await self._close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            await asyncio.to_thread(self._keeps.sweep)

    async def _close(self) -> None:
        """End every keep; a platform that hangs does not hold up the end, and its keeps lose their channels."""
        closing = asyncio.create_task(asyncio.to_thread(self._keeps.close))
        await asyncio.wait((closing,), timeout=CLOSE_TIMEOUT_S)
        self._routes.close()
        await self._shell.stop()
        for backend in self._keeps.backends:
            backend.close()
        await closing


def raise_descriptor_limit() -> None:
    """Take as many descriptors as the machine's owner allows: a keep needs three, a connection one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(settings.certificate, settings.key)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or error
        raise Malformed(f"{settings.certificate}: no certificate with its key: {reason}") from None
    return context
