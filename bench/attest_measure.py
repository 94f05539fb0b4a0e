"""How long expected measurements take, beside bare hashing of the same bytes and beside sev-snp-measure, in one run."""

from __future__ import annotations

import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from sevsnpmeasure import guest  # type: ignore[import-untyped]
from sevsnpmeasure.sev_mode import SevMode  # type: ignore[import-untyped]
from tests.forge.firmware import Ovmf

from bench import _report
from enarx.attest.measure import (
    CPU_SIGNATURES,
    flat_pages,
    mrenclave,
    mrtd,
    parse_sev_firmware,
    parse_td_firmware,
    snp_launch_digest,
)

PAGE: Final = 4096
CPU: Final = CPU_SIGNATURES["EPYC-v4"]
GOAL: Final = 1.2


def interleaved(actions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Medians in milliseconds of actions that take turns, so that all see the same machine."""
    samples: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            samples[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) * 1000 for name, values in samples.items()}


def launch(name: str, image: bytes, path: str, rounds: int) -> bool:
    """Compare an SNP launch digest of ``image``; beside the peer, which reads a file, we do so too."""

    def ours(data: bytes = image) -> bytes:
        return snp_launch_digest(parse_sev_firmware(data), vcpus=4, cpu_signature=CPU)

    def with_file() -> bytes:
        return ours(Path(path).read_bytes())

    def peer() -> bytes:
        digest: bytes = guest.calc_launch_digest(SevMode.SEV_SNP, 4, CPU, path, "", "", "", 1)
        return digest

    def bare() -> list[bytes]:
        return [hashlib.sha384(image[at : at + PAGE]).digest() for at in range(0, len(image), PAGE)]

    assert ours() == peer()
    took = interleaved({"ours": ours, "with file": with_file, "peer": peer, "bare": bare}, rounds)
    against_bare, against_peer = took["ours"] / took["bare"], took["with file"] / took["peer"]
    text = f"{took['ours']:.2f} ms"
    _report.line(
        f"SNP launch digest, {name}", text, peer="SHA-384 of its pages", ratio=against_bare,
        goal=f"at most {GOAL}", met=against_bare <= GOAL,
    )  # fmt: skip
    _report.line(
        "... its file read too", f"{took['with file']:.2f} ms", peer="sev-snp-measure", ratio=against_peer,
        goal="at most 1.0", met=against_peer <= 1,
    )  # fmt: skip
    return against_bare <= GOAL and against_peer <= 1


def main(arguments: list[str]) -> int:
    """Measure made images of 4 MiB, and the images that are named."""
    met = True
    noise = Ovmf(pages=1024, tdx=None).build()
    half = bytearray(noise)
    for page in range(0, 1023, 2):  # firmware volumes are padded with ones
        half[page * PAGE : page * PAGE + PAGE] = b"\xff" * PAGE
    with tempfile.TemporaryDirectory() as folder:
        images = {"4 MiB of noise": noise, "4 MiB, half of it padding": bytes(half)}
        for name, image in images.items():
            path = Path(folder) / "image"
            path.write_bytes(image)
            met &= launch(name, image, str(path), 60)
    for given in arguments:
        met &= launch(Path(given).name, Path(given).read_bytes(), given, 60)

    td = [
        (0, 0x3FF000, 0xFFC00000, 0x3FF000, 0, 1),
        (0x3FF000, 0x1000, 0xFFFFF000, 0x1000, 1, 0),
        (0, 0, 0x809000, 0x2000, 2, 0),
    ]
    firmware = parse_td_firmware(Ovmf(pages=1024, sev=None, tdx=td).build())
    hashed = bytes(0x3FF * (128 + 16 * 384))
    took = interleaved({"ours": lambda: mrtd(firmware), "bare": lambda: hashlib.sha384(hashed).digest()}, 30)
    _report.line(
        "MRTD, 4 MiB", f"{took['ours']:.2f} ms", peer="SHA-384 of its log", ratio=took["ours"] / took["bare"]
    )

    pages = flat_pages(noise)
    hashed = bytes(1024 * (64 + 16 * 320))
    took = interleaved(
        {
            "ours": lambda: mrenclave(size=1 << 22, pages=pages),
            "bare": lambda: hashlib.sha256(hashed).digest(),
        },
        30,
    )
    _report.line(
        "MRENCLAVE, 4 MiB",
        f"{took['ours']:.2f} ms",
        peer="SHA-256 of its log",
        ratio=took["ours"] / took["bare"],
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
