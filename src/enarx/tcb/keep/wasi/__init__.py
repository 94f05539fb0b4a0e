"""WASI preview 1, served by our own descriptors; nothing here touches a file system but our own."""
