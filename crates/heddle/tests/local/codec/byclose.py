"""Python's own HTTP server in its oldest manner: HTTP/1.0, and the end of a body is a close."""

from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"until the close")


HTTPServer(("0.0.0.0", 80), Handler).serve_forever()
