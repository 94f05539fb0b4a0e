"""AWS Nitro Enclaves: attestation documents, endorsed by a chain of short-lived certificates.

VERIFIER: the kind of evidence to give to ``Verifier``; binding is compared with the nonce
NitroRules: the policy section ``[nitro]``
NitroDetail: ``claims.detail`` of a Nitro verdict
"""

from enarx.attest.nitro._document import NitroDocument, parse_document
from enarx.attest.nitro._policy import NitroRules
from enarx.attest.nitro._tee import VERIFIER
from enarx.attest.nitro._verify import NitroDetail

__all__ = ["VERIFIER", "NitroDetail", "NitroDocument", "NitroRules", "parse_document"]
