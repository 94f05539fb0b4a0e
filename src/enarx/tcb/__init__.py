"""Inside: everything in this folder is in the keep image, and nothing else of ours is.

Rules, enforced by ``tests/architecture`` with ``tcb.toml``: a closed list of imports, no dynamic loading, no switch
that weakens a check, line ceilings. A change here is a change of the trusted computing base.

Each part distrusts somebody. ``wire`` distrusts whoever sent the bytes; ``workload`` the author of a configuration;
``sallyport`` the host; ``keep.wasi`` the guest program; ``keep`` all of them.
"""
