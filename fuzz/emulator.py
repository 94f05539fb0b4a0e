"""Fuzz target: what hosts and guests say to an emulated platform, and the images that it is given."""

from __future__ import annotations

import contextlib
import errno

from enarx.tcb.errors import EnarxError
from enarx.tcb.wire import decode
from enarx_emulator.coco import SecretTree
from enarx_emulator.messages import MAX_PORT_BYTES, answer_guest, parse_reply, parse_request
from enarx_emulator.program import parse_image
from enarx_emulator.tree import Faces
from enarx_emulator.tsm import Provider, Report, ReportTree
from enarx_emulator.vendor_services import parse_event


def one(data: bytes) -> None:
    """Read ``data`` as each of them; a guest gets an answer whatever it says."""
    for parse in (parse_request, parse_reply, parse_image, parse_event):
        with contextlib.suppress(EnarxError):
            parse(data)
    provider = Provider(name="tdx_guest", new_report=lambda inblob, _: Report(outblob=inblob))
    tree = Faces({"report": ReportTree(provider), "coco": SecretTree({"guid": b"secret"})})
    answer = decode(answer_guest(tree, data), max_bytes=MAX_PORT_BYTES)
    assert isinstance(answer, list)
    assert answer[0] == 0 or answer[0] in errno.errorcode
