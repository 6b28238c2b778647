// Tells each request what it was: method, path, fields in their order, bytes of its body.
//
// What names the address it was sent to is left out, and the id and the trace that the mesh gives every request.
const [port] = process.argv.slice(2);
const skipped = new Set(['host', 'x-request-id', 'traceparent', 'x-b3-traceid', 'x-b3-spanid',
  'x-b3-parentspanid', 'x-b3-sampled']);
require('http').createServer((request, response) => {
  let bytes = 0;
  request.on('data', (piece) => { bytes += piece.length; });
  request.on('end', () => {
    const fields = [];
    for (let at = 0; at < request.rawHeaders.length; at += 2) {
      const [name, value] = request.rawHeaders.slice(at, at + 2);
      if (!skipped.has(name.toLowerCase())) fields.push(`${name}=${value}`);
    }
    const text = `${request.method} ${request.url} ${fields.join('|')} ${bytes}`;
    response.writeHead(200, { 'Content-Type': 'text/plain', 'X-Seen': 'yes' });
    response.end(text);
  });
}).listen(Number(port));
