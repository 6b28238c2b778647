// Raw exchanges with the server: what is sent is written down here byte for byte, what came back is
// printed as one JSON object.
const net = require("net");

const CRLF = "\r\n";
const head = (method, path, ...fields) =>
  [`${method} ${path} HTTP/1.1`, "Host: codec", ...fields, "", ""].join(CRLF);

// Sends pieces one after the other, each once `after` of the one before has come, and returns all
// that came by the time `until` is there or the server closed.
function talk(pieces, until, host = "codec") {
  return new Promise((resolve) => {
    let came = "";
    let next = 0;
    const socket = net.connect({ port: 80, host, allowHalfOpen: true });
    const step = () => {
      while (next < pieces.length && (!pieces[next].after || came.includes(pieces[next].after))) {
        const { send, end } = pieces[next++];
        if (end) socket.end(send);
        else socket.write(send);
      }
      if (until && came.includes(until)) done("open");
    };
    const done = (how) => {
      socket.destroy();
      resolve({ came, how });
    };
    socket.on("connect", step);
    socket.on("data", (piece) => {
      came += piece.toString("latin1");
      step();
    });
    socket.on("end", () => done("closed"));
    socket.on("error", (error) => done(error.code));
  });
}

const cases = {
  interim: () => talk([{ send: head("GET", "/hints") }], "after hints"),
  expect: () =>
    talk(
      [
        { send: head("POST", "/post", "Expect: 100-continue", "Content-Length: 5") },
        { send: "hello", after: "100 Continue" },
      ],
      "/post 5",
    ),
  bodiless: () =>
    talk(
      [{ send: head("HEAD", "/page") + head("GET", "/204") + head("GET", "/304") + head("GET", "/last") }],
      "/last 0",
    ),
  old: () => talk([{ send: "GET /old HTTP/1.0\r\n\r\n" }]),
  oldKept: () =>
    talk(
      [
        { send: "GET /one HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" },
        { send: "GET /two HTTP/1.0\r\n\r\n", after: "/one 0" },
      ],
    ),
  pipelined: () =>
    talk([{ send: head("GET", "/a") + head("POST", "/b", "Content-Length: 2") + "xx" + head("GET", "/c") }], "/c 0"),
  trailers: () =>
    talk(
      [
        {
          send:
            head("POST", "/trailers", "TE: trailers", "Trailer: x-end", "Transfer-Encoding: chunked") +
            "3;name=value\r\nabc\r\n0\r\nx-end: here\r\n\r\n",
        },
      ],
      "x-sum: 42\r\n\r\n",
    ),
  halfClosed: () => talk([{ send: head("GET", "/half"), end: true }]),
  early: () => talk([{ send: head("POST", "/early", "Content-Length: 1000000") + "x" }], "too much"),
  upgrade: () =>
    talk(
      [
        { send: head("GET", "/up", "Connection: Upgrade", "Upgrade: echo") },
        { send: "over and out", after: "101 Switching" },
      ],
      "over and out",
    ),
  cut: () => talk([{ send: head("GET", "/cut") }]),
  byClose: () => talk([{ send: head("GET", "/") }], undefined, "byclose"),
};

(async () => {
  const results = {};
  for (const [name, run] of Object.entries(cases)) results[name] = await run();
  console.log(JSON.stringify(results));
})();
