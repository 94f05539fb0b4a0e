"""Outside: the machine that keeps run on, trusted by nobody but its owner; it trusts no keep and no tenant.

Code here moves bytes that it cannot read and starts, meters and kills processes. It never imports
``enarx.tcb.keep``.
"""
