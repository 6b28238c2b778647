// Streams as many chunks as it is told, a line each, one write after the other.
const [port, count] = process.argv.slice(2).map(Number);
require('http').createServer(async (request, response) => {
  for (let sent = 0; sent < count; sent += 1) {
    if (!response.write('a chunk\n')) await new Promise((go) => response.once('drain', go));
    if (sent % 100 === 0) await new Promise(setImmediate);
  }
  response.end();
}).listen(port);
