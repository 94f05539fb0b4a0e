"""Run WebAssembly workloads in trusted execution environments that prove what they are.

The path of a module says who trusts whom:

``enarx.tcb``
    Inside: measured, trusted by the tenant, part of the keep image.
``enarx.host``
    Outside: on the machine; trusted by nobody but its owner.
``enarx.tenant``
    The customer's side: decides what to trust, holds the secrets.
``enarx.attest``
    The relying party's library: verifies evidence, usable alone.
``enarx.cli``
    The thin shell around all of it.
"""

__version__ = "0.1.0"
