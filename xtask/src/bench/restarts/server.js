// A replica: answers GET and POST, notes the id of each POST, and ends in order on SIGTERM.
//
// Arguments: port, file to note in. Told to end, it answers on with `Connection: close` for a while,
// since a call may be on its way, and ends when none is under way.
const http = require('http'), fs = require('fs');
const [port, notes] = process.argv.slice(2);
let ending = false;
const server = http.createServer((request, response) => {
  let body = '';
  request.on('data', (part) => { body += part; });
  request.on('end', () => {
    if (request.method === 'POST') fs.appendFileSync(notes, body + '\n');
    setTimeout(() => {
      if (ending) response.setHeader('connection', 'close');
      response.setHeader('content-length', body.length + 2);
      response.end('ok' + body);
    }, 2);
  });
});
server.keepAliveTimeout = 60000;
process.on('SIGTERM', () => {
  ending = true;
  setTimeout(() => {
    server.close(() => process.exit(0));
    server.closeIdleConnections();
  }, 1000);
});
server.listen(Number(port), () => console.log('ready'));
