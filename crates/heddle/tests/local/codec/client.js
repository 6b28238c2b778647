// Raw exchanges with the servers: what is sent is written down here byte for byte, what came back is
// printed as one JSON object, by the cases named on the command line.
const net = require("net");

const CRLF = "\r\n";
const head = (method, path, ...fields) =>
  [`${method} ${path} HTTP/1.1`, "Host: anything", ...fields, "", ""].join(CRLF);
const send = (text, after) => ({ send: text, after });

// Sends pieces one after the other, each once `after` of the one before has come, and returns all
// that came by the time `until` is there or the server closed. A piece may `end` its side, `destroy`
// the connection, or `call` something.
function talk(host, pieces, until) {
  return new Promise((resolve) => {
    let came = "";
    let next = 0;
    const socket = net.connect({ port: 80, host, allowHalfOpen: true });
    const done = (how) => {
      socket.destroy();
      resolve({ came, how });
    };
    const step = () => {
      while (next < pieces.length && (!pieces[next].after || came.includes(pieces[next].after))) {
        const { send, end, destroy, call } = pieces[next++];
        if (call) call();
        else if (destroy) return socket.write(send, () => done("destroyed"));
        else if (end) socket.end(send);
        else socket.write(send);
      }
      if (until && came.includes(until)) done("open");
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

// Asks again until the answer is as wanted: for what a server learns in its own time.
async function ask(host, path, wanted) {
  for (;;) {
    const { came } = await talk(host, [send(head("GET", path, "Connection: close"))]);
    if (wanted(came)) return came;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const upload = (name, framing) => head("POST", "/upload", `X-Case: ${name}`, framing);

const cases = {
  fields: () =>
    talk(
      "node",
      [
        send(
          head(
            "GET",
            "/fields",
            "X-One: 1",
            "connection: x-private, keep-alive",
            "Connection: TE",
            "X-PRIVATE: client's",
            "Keep-Alive: timeout=9",
            "Proxy-Connection: keep-alive",
            "TE: gzip, trailers",
            "x-TWO: 2",
          ),
        ),
      ],
      " end",
    ),
  interim: () => talk("node", [send(head("GET", "/hints"))], "after hints"),
  expect: () =>
    talk(
      "node",
      [
        send(head("POST", "/post", "Expect: 100-continue", "Content-Length: 5")),
        send("hello", "100 Continue"),
      ],
      "/post 5",
    ),
  several: () =>
    talk(
      "node",
      [
        send(head("POST", "/several", "Expect: 100-continue", "Content-Length: 5")),
        send("hello", "100 Continue"),
      ],
      "/several 5",
    ),
  unwanted: () =>
    talk(
      "node",
      [send(head("POST", "/unwanted", "Expect: 100-continue", "Content-Length: 5"))],
      "unwanted",
    ),
  upgrade: () =>
    talk(
      "node",
      [
        send(head("GET", "/up", "Connection: Upgrade", "Upgrade: echo")),
        send("over and out", "101 Switching"),
      ],
      "over and out",
    ),
  bodiless: () =>
    talk(
      "node",
      [
        send(
          head("HEAD", "/page") + head("GET", "/204") + head("GET", "/304") + head("GET", "/last"),
        ),
      ],
      "/last 0",
    ),
  bodilessWithLength: () =>
    talk(
      "python",
      [
        send(head("GET", "/first")),
        send(
          head("HEAD", "/page") + head("GET", "/204") + head("GET", "/304") + head("GET", "/last"),
          "/first on",
        ),
      ],
      "/last on",
    ),
  bodilessFile: () =>
    talk(
      "nginx",
      [
        send(
          head("HEAD", "/page.txt") +
            head("GET", "/page.txt", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT") +
            head("GET", "/page.txt"),
        ),
      ],
      "the page",
    ),

  clientCloses: async () => {
    const first = await talk("node", [send(head("GET", "/connection", "Connection: close"))]);
    const open = await talk("node", [send(head("GET", "/open"))], " end");
    return { ...first, came: first.came + open.came };
  },
  serverCloses: () =>
    talk("node", [send(head("GET", "/close")), send(head("GET", "/after"), "connection ")], "/after 0"),
  old: () => talk("node", [send("GET /old HTTP/1.0\r\n\r\n")]),
  oldKept: () =>
    talk("node", [
      send("GET /one HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
      send("GET /two HTTP/1.0\r\n\r\n", "/one 0"),
    ]),
  oldStream: () =>
    talk("node", [send("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")]),
  pipelined: () =>
    talk(
      "node",
      [
        send(
          head("GET", "/a") + head("POST", "/b", "Content-Length: 2") + "xx" + head("GET", "/c"),
        ),
      ],
      "/c 0",
    ),
  pipelinedToNginx: () =>
    talk(
      "nginx",
      [send(head("GET", "/page.txt") + head("GET", "/none") + head("GET", "/connection"))],
      " end",
    ),
  halfClosed: () => talk("node", [{ send: head("GET", "/half"), end: true }]),
  halfClosedLate: () => talk("python", [{ send: head("GET", "/late"), end: true }]),
  early: async () => {
    const early = await talk(
      "node",
      [send(head("POST", "/early", "Content-Length: 1000000") + "x")],
      "too much on",
    );
    // Every worker of the sidecars is to have its chance.
    let later = "";
    for (let n = 0; n < 16; n++) later += await ask("node", "/connection", () => true);
    return { ...early, later };
  },

  trailers: () =>
    talk(
      "node",
      [
        send(
          head("POST", "/trailers", "TE: trailers", "Trailer: x-end", "Transfer-Encoding: chunked") +
            "3;name=value\r\nabc\r\n0\r\nx-end: here\r\n\r\n",
        ),
      ],
      "x-sum: 42\r\n\r\n",
    ),
  extensions: () => talk("python", [send(head("GET", "/extensions"))], "X-Sum: 7\r\n\r\n"),
  byClose: () => talk("byclose", [send(head("GET", "/"))]),
  cut: () => talk("node", [send(head("GET", "/cut"))]),
  cutChunk: () => talk("node", [send(head("GET", "/cutchunk"))]),
  cutByReset: () =>
    talk("python", [
      send(head("GET", "/reset")),
      { call: () => ask("python", "/reset-now", () => true), after: "half" },
    ]),
  uploads: async () => {
    const length = "Content-Length: 100";
    const chunked = "Transfer-Encoding: chunked";
    await Promise.all([
      talk("node", [{ send: upload("lengthEnded", length) + "hello", end: true }]),
      talk("node", [{ send: upload("lengthDestroyed", length) + "hello", destroy: true }]),
      talk("node", [{ send: upload("chunkEnded", chunked) + "5\r\nhello\r\n", end: true }]),
      talk("node", [{ send: upload("chunkDestroyed", chunked) + "a\r\nhello", destroy: true }]),
    ]);
    const all = (came) => (came.match(/Ended|Destroyed/g) || []).length === 4;
    return { came: await ask("node", "/uploads", all), how: "closed" };
  },
  uploadToPython: () =>
    talk("python", [{ send: head("POST", "/", "Content-Length: 100") + "hello", end: true }]),
};

(async () => {
  const results = {};
  for (const name of process.argv.slice(2)) results[name] = await cases[name]();
  console.log(JSON.stringify(results));
})();
