"""Fills the label sets of its own sidecar, then scrapes it, each time when a file for it is there.

Arguments: the folder, scrapes, label sets, services. Prints `filled`, then a JSON object per scrape.
"""
import http.client, json, os, socket, sys, time

folder, scrapes, sets, services = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
statuses = [status for status in range(200, 1000) if status not in (204, 304)]
left = sets
for service in services:
    connection = http.client.HTTPConnection(service, 80, timeout=20)
    for status in statuses[:left]:
        connection.request("GET", f"/{status}")
        connection.getresponse().read()
    left -= min(left, len(statuses))
print("filled", flush=True)


def scrape():
    stream = socket.create_connection(("127.0.0.1", 15090), timeout=60)
    stream.sendall(b"GET /stats/prometheus HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    begun = last = time.monotonic()
    longest, pieces = 0, []
    while piece := stream.recv(1 << 20):
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        pieces.append(piece)
    text = b"".join(pieces)
    return {"sets": text.count(b"\nistio_requests_total{"), "bytes": len(text),
            "ms": (last - begun) * 1e3, "longest_gap_ms": longest * 1e3}


for number in range(scrapes):
    while not os.path.exists(f"{folder}/scrape-{number}"):
        time.sleep(0.02)
    print(json.dumps(scrape()), flush=True)
time.sleep(600)
