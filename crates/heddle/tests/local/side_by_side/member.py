"""A cluster's member that another joins: who joins says three letters and waits for an answer, which is
binary, and only then sends the rest. `serve`, or `join HOST`, which prints what was exchanged."""
import socket, struct, sys

PORT = 5701


def exactly(stream, count):
    data = b""
    while len(data) < count:
        piece = stream.recv(count - len(data))
        if not piece:
            raise EOFError(data)
        data += piece
    return data


def serve():
    listener = socket.create_server(("", PORT))
    while True:
        stream, _ = listener.accept()
        with stream:
            try:
                name = exactly(stream, 3)
                stream.sendall(b"\x00\x00\x00\x03" + name[::-1])
                (length,) = struct.unpack(">I", exactly(stream, 4))
                stream.sendall(struct.pack(">I", length) + exactly(stream, length)[::-1])
                exactly(stream, 1)
            except (EOFError, ConnectionError):
                pass


def join(host):
    with socket.create_connection((host, PORT)) as stream:
        stream.sendall(b"HZC")
        print("answer", exactly(stream, 7).hex())
        stream.sendall(struct.pack(">I", 8) + bytes(range(8)))
        print("joined", exactly(stream, 12).hex())


serve() if sys.argv[1] == "serve" else join(sys.argv[2])
