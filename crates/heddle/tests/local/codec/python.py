"""Python's own HTTP server, for answers that a library would not let one write."""

import os
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

reset = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def say(self, text):
        self.wfile.write(text.encode())

    def whole(self, text):
        self.say(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}")

    def do_HEAD(self):
        self.say("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")

    def do_GET(self):
        if self.path in ("/204", "/304"):
            # A length and no body: legal for 304, seen in the wild for 204.
            self.say(f"HTTP/1.1 {self.path[1:]} So\r\nContent-Length: 1000\r\n\r\n")
        elif self.path == "/extensions":
            self.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            self.say('3;name=value\r\nabc\r\n2 ; q="a b"\r\nde\r\n0;last\r\nX-Sum: 7\r\n\r\n')
        elif self.path == "/late":
            # Answers once the client has said that nothing more will come.
            self.whole(f"late {len(self.rfile.read())}")
            self.close_connection = True
        elif self.path == "/reset":
            # Half of a body that only a close would end, then a reset, when told to.
            self.say("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf")
            reset.wait(30)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Not by the server's way, which would send an orderly end first.
            os.close(self.connection.detach())
            self.close_connection = True
        elif self.path == "/reset-now":
            reset.set()
            self.whole("done")
        else:
            self.whole(f"{self.path} on {self.client_address[1]}.")

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.whole(f"read {len(self.rfile.read(length))} of {length}")
        self.close_connection = True


ThreadingHTTPServer(("0.0.0.0", 80), Handler).serve_forever()
