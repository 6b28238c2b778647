"""Calls at a constant rate, on kept connections and on new ones, and tells what failed.

Arguments: seconds, calls a second, URLs' hosts. Prints one JSON object at the end.
"""
import http.client, json, sys, threading, time, uuid

seconds, rate, hosts = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
THREADS = 30
start, lock = time.time(), threading.Lock()
calls, errors = [0], []


def call(connection, host, number):
    method = "POST" if number % 2 else "GET"
    body = f"py-{uuid.uuid4()}" if method == "POST" else None
    began = time.time()
    try:
        connection.request(method, "/", body)
        answer = connection.getresponse()
        text = answer.read().decode()
        good = answer.status == 200 and text == "ok" + (body or "")
        problem = None if good else f"{answer.status} {text[:200]}"
    except Exception as error:
        problem = repr(error)
        connection.close()
    with lock:
        calls[0] += 1
        if problem:
            took = round(time.time() - began, 3)
            errors.append({"at": round(began - start, 2), "took": took, "client": "python",
                           "call": f"{method} {host} {body or ''}", "problem": problem})


def work(index):
    kept = {host: http.client.HTTPConnection(host, 80, timeout=20) for host in hosts}
    pause, number = THREADS / rate, index
    due = start + pause * index / THREADS
    while due < start + seconds:
        time.sleep(max(0, due - time.time()))
        host = hosts[number // 2 % len(hosts)]
        if index % 2:
            call(kept[host], host, number)
        else:
            connection = http.client.HTTPConnection(host, 80, timeout=20)
            call(connection, host, number)
            connection.close()
        number, due = number + 1, due + pause


threads = [threading.Thread(target=work, args=(index,)) for index in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({"calls": calls[0], "errors": errors}))
