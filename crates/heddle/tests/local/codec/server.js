// Node's own HTTP server, asked for everything HTTP/1 can do.
const http = require("http");

const server = http.createServer((req, res) => {
  const path = req.url;
  if (path === "/hints") {
    res.writeEarlyHints({ link: "</a.css>; rel=preload" });
    res.writeEarlyHints({ link: "</b.css>; rel=preload" });
    return res.end("after hints");
  }
  if (path === "/204" || path === "/304") {
    res.writeHead(Number(path.slice(1)));
    return res.end();
  }
  if (path === "/trailers") {
    let body = "";
    req.on("data", (piece) => (body += piece));
    req.on("end", () => {
      res.writeHead(200, { trailer: "x-sum" });
      res.write(`${body} ${req.trailers["x-end"]}`);
      res.addTrailers({ "x-sum": "42" });
      res.end();
    });
    return;
  }
  if (path === "/early") {
    return res.writeHead(413, { "content-length": 8 }).end("too much");
  }
  if (path === "/cut") {
    res.writeHead(200, { "content-length": 100 });
    return res.write("half", () => res.socket.destroy());
  }
  let length = 0;
  req.on("data", (piece) => (length += piece.length));
  req.on("end", () => res.end(`${path} ${length}`));
});
server.on("checkContinue", (req, res) => {
  res.writeContinue();
  server.emit("request", req, res);
});
server.on("upgrade", (req, socket, head) => {
  socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
  socket.write(head);
  socket.pipe(socket);
});
server.listen(80);
