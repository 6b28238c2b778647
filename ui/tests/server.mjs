// Serves dist/ and canned answers on a free port of loopback. `answer` may be replaced while it runs, and so may
// `stream`, which gets the response to write live calls to.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";

const DIST = fileURLToPath(new URL("../dist/", import.meta.url));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
/** As crates/heddle-observe/src/routes.rs sends it, so that a violation shows here. */
const POLICY =
  "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

export async function serve(answer) {
  const state = { answer, asked: [] };
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, "http://localhost");
    response.setHeader("content-security-policy", POLICY);
    if (url.pathname.startsWith("/api/")) {
      if (url.pathname === "/api/v1/tap" && state.stream) {
        state.stream(url, response);
        return;
      }
      state.asked.push(request.url);
      const reply = state.answer(url);
      if (reply === undefined) {
        request.socket.destroy();
        return;
      }
      const status = reply?.status ?? 200;
      response.writeHead(status, { "content-type": "application/json" });
      response.end(JSON.stringify(reply?.status ? reply.body : reply));
      return;
    }
    const path = url.pathname === "/" ? "index.html" : url.pathname.slice(1);
    try {
      const body = await readFile(join(DIST, path));
      response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "application/octet-stream" });
      response.end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  const { port } = server.address();
  return {
    state,
    url: `http://127.0.0.1:${port}/`,
    close: () => {
      server.closeAllConnections();
      return new Promise((done) => server.close(done));
    },
  };
}
