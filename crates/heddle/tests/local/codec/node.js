// Node's own HTTP server, asked for everything HTTP/1 can do. It also tells what it saw: which of
// its connections a request came on, how many are open, and how requests ended that were cut.
const http = require("http");

let connections = 0;
const open = new Set();
const cuts = {};

const routes = {
  "/hints": (req, res) => {
    res.writeEarlyHints({ link: "</a.css>; rel=preload" });
    res.writeEarlyHints({ link: "</b.css>; rel=preload" });
    res.end("after hints");
  },
  // All fields as they came, and a connection's own among the answer's.
  "/fields": (req, res) => {
    res.writeHead(200, [
      ["X-First", "1"],
      ["Connection", "keep-alive, X-Nominated"],
      ["x-NOMINATED", "server's"],
      ["Keep-Alive", "timeout=60"],
      ["Proxy-Connection", "keep-alive"],
      ["x-LAST", "2"],
    ].flat());
    res.end(`fields ${req.rawHeaders.join("|")} end`);
  },
  "/connection": (req, res) => res.end(`connection ${req.socket.number}.`),
  "/close": (req, res) => {
    res.setHeader("Connection", "close");
    res.end(`connection ${req.socket.number}.`);
  },
  "/open": (req, res) => res.end(`open ${[...open].map((number) => `${number}.`).join(" ")} end`),
  "/trailers": (req, res) => {
    let body = "";
    req.on("data", (piece) => (body += piece));
    req.on("end", () => {
      res.writeHead(200, { trailer: "x-sum" });
      res.write(`${body} ${req.trailers["x-end"]} ${req.socket.taken.includes("name=value")}`);
      res.addTrailers({ "x-sum": "42" });
      res.end();
    });
  },
  "/early": (req, res) => {
    const text = `too much on ${req.socket.number}.`;
    res.writeHead(413, { "content-length": text.length }).end(text);
  },
  "/cut": (req, res) => {
    res.writeHead(200, { "content-length": 100 });
    res.write("half", () => res.socket.destroy());
  },
  "/cutchunk": (req, res) => {
    res.write("half", () => res.socket.destroy());
  },
  "/stream": (req, res) => {
    res.write("first ");
    res.end("second");
  },
  // Notes what came of a body that is never complete.
  "/upload": (req) => {
    let length = 0;
    const name = req.headers["x-case"];
    req.on("data", (piece) => (length += piece.length));
    req.on("end", () => (cuts[name] = `completed ${length}`));
    req.on("error", () => {});
    req.on("close", () => (cuts[name] ??= `aborted ${length} ${req.complete}`));
  },
  "/uploads": (req, res) => res.end(`uploads ${JSON.stringify(cuts)} end`),
};

const bodiless = (req, res) => {
  res.writeHead(Number(req.url.slice(1)));
  res.end();
};
routes["/204"] = routes["/304"] = bodiless;

const server = http.createServer((req, res) => {
  if (routes[req.url]) return routes[req.url](req, res);
  let length = 0;
  req.on("data", (piece) => (length += piece.length));
  req.on("end", () => res.end(`${req.url} ${length}`));
});
server.keepAliveTimeout = 60000;
server.on("connection", (socket) => {
  socket.number = ++connections;
  socket.taken = "";
  open.add(socket.number);
  socket.on("data", (piece) => (socket.taken += piece.toString("latin1")));
  socket.on("close", () => open.delete(socket.number));
});
server.on("checkContinue", (req, res) => {
  if (req.url === "/unwanted") return res.writeHead(417, { "content-length": 8 }).end("unwanted");
  if (req.url === "/several") {
    res.writeEarlyHints({ link: "</a.css>; rel=preload" });
    res.writeProcessing();
  }
  res.writeContinue();
  if (req.url === "/several") res.writeEarlyHints({ link: "</b.css>; rel=preload" });
  server.emit("request", req, res);
});
server.on("upgrade", (req, socket, head) => {
  socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
  socket.write(head);
  socket.pipe(socket);
});
server.listen(80);
