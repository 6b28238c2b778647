"""`reviews` and `photos` in Python: the standard library, nothing installed.

python3 app.py ROLE VERSION PORT COUNTS_SOCKET
"""
import collections
import http.client
import http.server
import json
import os
import socket
import socketserver
import sys
import threading

ROLE, VERSION, PORT, COUNTS = sys.argv[1:5]
FORWARDED = ("x-request-id", "traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid",
             "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags", "end-user")
TEXTS = ("Would walk across town for this.", "The soup alone is worth it.",
         "Quiet on weekdays, lively on Fridays.", "Friendly people, fair prices.")
LOCK = threading.Lock()
TABLE = {part: collections.Counter() for part in ("sent", "received", "failed")}
LOCAL = threading.local()


def count(part, peer, number=1):
    with LOCK:
        TABLE[part][peer] += number


def ratings(number, headers):
    """Stars of a restaurant, asked of the service `ratings` on this thread's connection."""
    connection = getattr(LOCAL, "ratings", None)
    if connection is None:
        connection = LOCAL.ratings = http.client.HTTPConnection("ratings", timeout=15)
    passed = {name: headers[name] for name in FORWARDED if name in headers}
    ok = False
    try:
        connection.request("GET", f"/ratings/{number}", headers={"x-demo-caller": ROLE, **passed})
        answer = connection.getresponse()
        body = answer.read().decode()
        ok = answer.status < 500
        return json.loads(body)["stars"] if answer.status == 200 else {"error": f"{answer.status} {body}"}
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return {"error": str(error)}
    finally:
        count("sent", "ratings")
        count("failed", "ratings", 0 if ok else 1)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave in one write
    disable_nagle_algorithm = True

    def do_GET(self):
        count("received", self.headers.get("x-demo-caller", "unknown"))
        last = self.path.rsplit("/", 1)[-1]
        number = int(last) if last.isdigit() else 0
        if ROLE == "photos":
            body = {"photos": [f"{number}-front.jpg", f"{number}-table.jpg"]}
        else:
            stars = None if VERSION == "v1" else ratings(number, self.headers)
            body = {"version": VERSION, "language": "python", "stars": stars,
                    "reviews": [TEXTS[number % 4], TEXTS[(number + 1) % 4]]}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Counts(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.readline()
        with LOCK:
            text = json.dumps(TABLE)
        self.wfile.write(text.encode() + b"\n")


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self):
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        socketserver.TCPServer.server_bind(self)


def server():
    """On both address families; a machine without IPv6 gets the other."""
    try:
        return Server(("::", int(PORT)), Handler)
    except OSError:
        Server.address_family = socket.AF_INET
        return Server(("0.0.0.0", int(PORT)), Handler)


if os.path.exists(COUNTS):
    os.unlink(COUNTS)
threading.Thread(target=socketserver.ThreadingUnixStreamServer(COUNTS, Counts).serve_forever, daemon=True).start()
server().serve_forever()
