// `reviews` and `ratings` in JavaScript: plain Node, nothing installed.
// node app.js ROLE VERSION PORT COUNTS_SOCKET
'use strict';
const http = require('http');
const net = require('net');
const fs = require('fs');

const [role, version, port, counts] = process.argv.slice(2);
const table = { sent: {}, received: {}, failed: {} };
const add = (part, peer, n = 1) => { table[part][peer] = (table[part][peer] || 0) + n; };
const forwarded = ['x-request-id', 'traceparent', 'tracestate', 'b3', 'x-b3-traceid', 'x-b3-spanid',
  'x-b3-parentspanid', 'x-b3-sampled', 'x-b3-flags', 'end-user'];
const texts = ['Would walk across town for this.', 'The soup alone is worth it.',
  'Quiet on weekdays, lively on Fridays.', 'Friendly people, fair prices.'];
const agent = new http.Agent({ keepAlive: true });

function ratings(id, from, done) {
  const headers = { 'x-demo-caller': role, accept: 'application/json' };
  for (const name of forwarded) if (from.headers[name]) headers[name] = from.headers[name];
  const finish = (ok, stars) => { add('sent', 'ratings'); add('failed', 'ratings', ok ? 0 : 1); done(stars); };
  const call = http.get({ host: 'ratings', path: `/ratings/${id}`, agent, headers, timeout: 15000 }, (answer) => {
    let body = '';
    answer.on('data', (part) => { body += part; });
    answer.on('end', () => {
      if (answer.statusCode !== 200) return finish(answer.statusCode < 500, { error: `${answer.statusCode} ${body}` });
      return finish(true, JSON.parse(body).stars);
    });
    answer.on('error', (error) => finish(false, { error: error.message }));
  });
  call.on('timeout', () => call.destroy(new Error('no answer in 15 s')));
  call.on('error', (error) => finish(false, { error: error.message }));
}

const server = http.createServer((request, response) => {
  add('received', request.headers['x-demo-caller'] || 'unknown');
  request.resume();
  const id = Number.parseInt(request.url.split('/').pop(), 10) || 0;
  const send = (body) => {
    const text = JSON.stringify(body);
    response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) });
    response.end(text);
  };
  if (role === 'ratings') return send({ stars: 1 + (id * 7 + 3) % 5 });
  const answer = { version, language: 'javascript', reviews: [texts[id % 4], texts[(id + 1) % 4]] };
  if (version === 'v1') return send({ ...answer, stars: null });
  return ratings(id, request, (stars) => send({ ...answer, stars }));
});
server.listen(Number(port));

fs.rmSync(counts, { force: true });
net.createServer((socket) => {
  socket.on('error', () => {});
  socket.once('data', () => socket.end(`${JSON.stringify(table)}\n`));
}).listen(counts);
