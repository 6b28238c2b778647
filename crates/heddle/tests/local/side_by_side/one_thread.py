"""A server of one thread that keeps connections: it reads one to its end before it takes up the next, and
counts how often it waited in vain for a client that had left."""
import http.server

waits = 0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 3

    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        text = f"waits {waits}\n" if self.path == "/waits" else "ok\n"
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_POST = do_GET

    def log_message(self, *_):
        pass

    def log_error(self, form, *_):
        global waits
        waits += "timed out" in form.lower()


http.server.HTTPServer(("", 80), Handler).serve_forever()
