"""A host as tenants meet it: emulated machines and a host agent, all real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from enarx.host.agent import Accounts, Agent, Settings, parse_accounts
from enarx.host.backend import open_backend
from enarx.tenant.agent_calls import HostAddress
from enarx.tenant.agent_client import AgentClient
from enarx.tenant.image import build_image, installed_image
from enarx.tenant.verification import Trust

EMULATOR = str(Path(sys.executable).with_name("enarx-emulator"))


class EmulatedHost:
    """Machines of some kinds behind one agent. Use it as a context manager."""

    def __init__(
        self, folder: Path, kinds: Sequence[str] = ("snp",), *, options: Sequence[str] = (), tls: bool = False
    ) -> None:
        self.folder = folder
        self._stack = contextlib.ExitStack()
        self._kinds = kinds
        self._options = [*options, *(("--tls", str(folder)) if tls else ())]
        self.address = HostAddress.parse("http://localhost:1")
        self.agent: subprocess.Popen[str]

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            image = self.folder / "keep.tar"
            build_image(image)
            states = [self._machine(stack, kind) for kind in self._kinds]
            command = [sys.executable, "-m", "tests.integration.deploy_host", str(image), *states]
            self.agent = self._started(stack, [*command, *self._options])
            assert self.agent.stdout is not None
            url = self.agent.stdout.readline().strip()
            assert url, "the agent did not start"
            self.address = HostAddress.parse(url)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def trust(self) -> Trust:
        """Trust this release's image, and the emulated vendors of these machines."""
        with AgentClient(self.address) as client:
            machines = [client.platform(kind) for kind in self._kinds]
        roots = [root for machine in machines for root in machine.roots]
        roots += [it.data for machine in machines for it in machine.documents if it.kind == "public-key"]
        return Trust.release(installed_image(), roots={f"emulated {at}": it for at, it in enumerate(roots)})

    def _machine(self, stack: contextlib.ExitStack, kind: str) -> str:
        state = self.folder / kind
        command = [EMULATOR, "start", kind, "--state", str(state), "--beside-real-hardware", "--json"]
        process = self._started(stack, command)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["schema"] == "enarx-emulator.started/1"
        return str(state)

    @staticmethod
    def _started(stack: contextlib.ExitStack, command: Sequence[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

        def end() -> None:
            process.terminate()
            process.communicate(timeout=60)

        stack.callback(end)
        return process


def main(image: str, *arguments: str) -> None:
    """Serve: the image, states of machines, then ``--tls DIRECTORY`` and ``--tokens FILE``."""
    states, certificate, key, accounts = [], None, None, Accounts()
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--tls":
            folder = Path(rest.pop(0))
            certificate, key = folder / "host.pem", folder / "host.key"
        elif argument == "--tokens":
            accounts = parse_accounts(Path(rest.pop(0)).read_text())
        else:
            states.append(argument)
    settings = Settings(image=Path(image), port=0, certificate=certificate, key=key, accounts=accounts)
    agent = Agent(settings, [open_backend(f"emulated={state}") for state in states])
    asyncio.run(agent.serve(lambda url: print(url, flush=True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
