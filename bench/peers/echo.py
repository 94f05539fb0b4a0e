"""The Python peer of bench/tls.py: a TLS 1.3 echo server for one connection at a time. PORT CERTIFICATE KEY."""

import socket
import ssl
import sys

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.load_cert_chain(sys.argv[2], sys.argv[3])
buffer = bytearray(65536)
view = memoryview(buffer)
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        try:
            accepted = listener.accept()[0]
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with context.wrap_socket(accepted, server_side=True) as stream:
                while size := stream.recv_into(buffer):
                    stream.sendall(view[:size])
        except OSError:
            continue
