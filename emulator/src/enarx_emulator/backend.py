"""Keeps on an emulated platform, for the host agent: ``--backend emulated=DIRECTORY`` of a running machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from enarx.attest import Collateral, Kind
from enarx.host.backend import Endorsements, Fact, LaunchRequest, Support
from enarx.host.keep_process import KeepNotStarted, KeepProcess
from enarx.tcb.errors import EnarxError, Malformed, ProtocolViolation, Unavailable
from enarx.tcb.wire import Value, decode, encode
from enarx_emulator.client import Platform

BOOT_TIMEOUT_S: Final = 120.0
"""A translated machine takes some seconds, and many at once their sum."""
MAX_TENANT_BYTES: Final = 1 << 20
_PRE_BOOT: Final = {
    "sev": ("policy", "certificate", "session"),
    "sev-es": ("policy", "certificate", "session"),
    "pef": ("esm_blob",),
}
"""What the tenant of a TEE that attests before boot sends along with the launch."""
_PACKET: Final = ("header", "payload")


class EmulatedBackend:
    """Implements ``enarx.host.backend.Backend``."""

    emulated = True

    def __init__(self, argument: str) -> None:
        """``argument``: the state directory of a running platform. Raises ``Unavailable``."""
        if not argument:
            raise Unavailable("backend emulated: which platform?", hint="--backend emulated=DIRECTORY")
        self._argument = argument
        self._lock = threading.Lock()
        self._images: dict[Path, bytes] = {}
        self.connection = 0
        self._platform: Platform | None = Platform(Path(argument))
        info = self.command("info")
        self.tee = _text(info, "kind")
        self.name = f"emulated-{self.tee}"
        self._info = info

    def command(self, name: str, **arguments: Value) -> dict[str, Value]:
        """Run a command of the platform. Raises ``EnarxError``."""
        with self._connected() as platform:
            return platform.command(name, **arguments)

    @contextmanager
    def _connected(self) -> Iterator[Platform]:
        """Give the connection. One that broke is not used again: the platform may have been started anew."""
        with self._lock:
            if self._platform is None:
                self._platform = Platform(Path(self._argument))
                self.connection += 1
            try:
                yield self._platform
            except Unavailable:
                self._platform.close()
                self._platform = None
                self._images.clear()
                raise

    def support(self) -> Support:
        """Ask the platform."""
        try:
            product = _text(self.command("info"), "product")
            fact = Fact(name="platform", passed=True, detail=f"EMULATED {self.tee}, {product}")
        except EnarxError as error:
            advice = f"enarx-emulator start {self.tee} --state {self._argument}"
            fact = Fact(name="platform", passed=False, detail=str(error), advice=advice)
        return Support(ready=fact.passed, facts=(fact,))

    def endorsements(self) -> Endorsements:
        """Give what the emulated vendor says of the platform."""
        roots = tuple(_pem(it) for it in _list(self._info, "roots"))
        if self.tee in ("sev", "sev-es"):
            chain = _bytes(self._info, "platform_chain")
            return Endorsements(documents=((Kind.SEV_CERTIFICATE.value, chain),), roots=roots)
        if self.tee == "pef":
            keys = Collateral.from_pem(_bytes(self._info, "machine_key")).of(Kind.PUBLIC_KEY)
            return Endorsements(documents=tuple((Kind.PUBLIC_KEY.value, key) for key in keys), roots=roots)
        found = self.command("certificates")
        documents = [
            (str(item[0]), item[1])
            for item in _list(found, "documents")
            if isinstance(item, list) and len(item) == 2 and isinstance(item[1], bytes)
        ]
        return Endorsements(
            certificates=tuple(it for it in _list(found, "certificates") if isinstance(it, bytes)),
            crls=tuple(it for it in _list(found, "crls") if isinstance(it, bytes)),
            documents=tuple(documents),
            roots=roots,
        )

    def prepare(self, image: Path) -> None:
        """Load the image."""
        self._images[image] = _bytes(self.command("load", path=str(image.resolve())), "image")

    def launch(self, request: LaunchRequest) -> EmulatedKeep:
        """Launch a keep: whole, or for a pre-boot TEE up to what its tenant must see."""
        if request.image not in self._images:
            self.prepare(request.image)
        launched = self.command("launch", image=self._images[request.image], **self._told(request.tenant))
        guest = launched.get("guest")
        if not isinstance(guest, int):
            raise Unavailable("the platform launched nothing")
        keep = EmulatedKeep(self, guest)
        try:
            if self.tee in ("sev", "sev-es"):
                keep.launch = encode({**self.command("measure", guest=guest)})
            else:
                if self.tee == "pef":
                    self.command("finish", guest=guest)
                keep.start()
        except BaseException:
            keep.stop()
            raise
        return keep

    def run(self, guest: int, argv: Sequence[str], *, channel: int) -> int:
        """Start a launched guest that is a program, with ``channel`` as its descriptor 3; give its process id."""
        with self._connected() as platform:
            return platform.run(guest, argv, channel=channel)

    def keep(self, guest: int) -> tuple[int, socket.socket, bool]:
        """Start the keep of a guest (``Platform.keep``)."""
        with self._connected() as platform:
            return platform.keep(guest)

    def stop(self, guest: int, connection: int) -> None:
        """Stop a guest, unless it was one of a platform that has ended since: others may have its handle now."""
        with self._connected() as platform:
            if connection == self.connection:
                platform.command("stop", guest=guest)

    def close(self) -> None:
        """Leave the platform; it goes on."""
        platform = self._platform
        if platform is not None:
            platform.close()

    def _told(self, tenant: bytes) -> dict[str, Value]:
        """Read what the tenant sent for the launch."""
        names = _PRE_BOOT.get(self.tee, ())
        if not names:
            if tenant:
                raise Malformed(f"a launch on {self.tee} takes nothing from the tenant")
            return {}
        return _map(tenant, names, f"launch on {self.tee}")


class EmulatedKeep:
    """Implements ``enarx.host.backend.Launched``."""

    def __init__(self, backend: EmulatedBackend, guest: int) -> None:
        self._backend = backend
        self._guest = guest
        self._connection = backend.connection
        self._stopped = False
        self.pid: int | None = None
        self.channel: socket.socket | None = None
        self.launch = b""

    def start(self) -> None:
        """Start it, and wait until it is ready; what a keep of a pool sends first has been read."""
        self.pid, self.channel, booting = self._backend.keep(self._guest)
        if booting:
            outcome = KeepProcess(self.channel, self.pid, ours=False).await_ready(BOOT_TIMEOUT_S)
            if outcome is not None:
                raise KeepNotStarted(f"the keep did not start: {outcome.detail}")

    def secret(self, packet: bytes) -> None:
        """Inject the tenant's packet, and start."""
        if self.channel is not None or not self.launch:
            raise ProtocolViolation("this keep waits for no secret")
        self._backend.command("secret", guest=self._guest, **_map(packet, _PACKET, "secret"))
        self._backend.command("finish", guest=self._guest)
        self.start()

    def stop(self) -> None:
        """End the guest and its process."""
        if self._stopped:
            return
        self._stopped = True
        if self.channel is not None:
            self.channel.close()
        try:
            self._backend.stop(self._guest, self._connection)
        except EnarxError:
            return  # the platform is gone, and with it its guests


def _map(data: bytes, names: tuple[str, ...], what: str) -> dict[str, Value]:
    value = decode(data, max_bytes=MAX_TENANT_BYTES)
    if not isinstance(value, dict) or value.keys() != set(names):
        raise Malformed(f"{what}: expected a map of {', '.join(names)}")
    return value


def _text(found: dict[str, Value], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str):
        raise Unavailable(f"the platform tells no {name}")
    return value


def _bytes(found: dict[str, Value], name: str) -> bytes:
    value = found.get(name)
    if not isinstance(value, bytes):
        raise Unavailable(f"the platform tells no {name}")
    return value


def _list(found: dict[str, Value], name: str) -> list[Value]:
    value = found.get(name, [])
    return value if isinstance(value, list) else []


def _pem(root: Value) -> bytes:
    if isinstance(root, str):
        return root.encode()
    if not isinstance(root, bytes):
        raise Unavailable("the platform tells roots that are no certificates")
    return root
