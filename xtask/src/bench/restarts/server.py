"""A replica: answers GET and POST, notes the id of each POST, and ends in order on SIGTERM.

Arguments: port, file to note in. Told to end, it answers on with `Connection: close` for a while,
since a call may be on its way, and ends when none is under way.
"""
import http.server, os, signal, sys, threading, time

port, notes = int(sys.argv[1]), open(sys.argv[2], "a", buffering=1)
ending, under_way = threading.Event(), [0]
lock = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Between two calls of a connection that nobody closes.
    timeout = 60

    def answer(self):
        with lock:
            under_way[0] += 1
        try:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.command == "POST":
                notes.write(body.decode() + "\n")
            time.sleep(0.002)
            self.send_response(200)
            self.send_header("content-length", str(len(body) + 2))
            if ending.is_set():
                self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(b"ok" + body)
        finally:
            with lock:
                under_way[0] -= 1

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def end():
    ending.set()
    time.sleep(1)
    server.shutdown()
    while under_way[0]:
        time.sleep(0.01)
    time.sleep(0.2)
    os._exit(0)


server = Server(("", port), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=end).start())
print("ready", flush=True)
server.serve_forever(poll_interval=0.1)
threading.Event().wait()
