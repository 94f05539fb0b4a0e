"""The vendors' root certificates and keys as files; ``enarx.attest.anchors`` pins their fingerprints. See
README.md.
"""
