// Calls at a constant rate, on kept connections and on new ones, and tells what failed.
//
// Arguments: seconds, calls a second, URLs' hosts. Prints one JSON object at the end.
const http = require('http'), crypto = require('crypto');
const [seconds, rate] = process.argv.slice(2, 4).map(Number), hosts = process.argv.slice(4);
const kept = new http.Agent({ keepAlive: true, maxSockets: 16 });
const fresh = new http.Agent({ keepAlive: false });
const start = Date.now(), errors = [];
let calls = 0, open = 0, number = 0;

function call(host) {
  const method = number % 2 ? 'POST' : 'GET', began = Date.now();
  const body = method === 'POST' ? 'js-' + crypto.randomUUID() : '';
  const options = { host, port: 80, method, timeout: 20000, agent: number % 4 < 2 ? kept : fresh };
  if (body) options.headers = { 'content-length': body.length };
  let over = false;
  const done = (problem) => {
    if (over) return;
    over = true; open -= 1; calls += 1;
    if (problem) {
      errors.push({ at: (began - start) / 1000, took: (Date.now() - began) / 1000, client: 'node',
                    call: `${method} ${host} ${body}`, problem });
    }
  };
  open += 1;
  const request = http.request(options, (answer) => {
    let text = '';
    answer.on('data', (part) => { text += part; });
    answer.on('end', () => {
      const good = answer.statusCode === 200 && text === 'ok' + body;
      done(good ? null : `${answer.statusCode} ${text.slice(0, 200)}`);
    });
    answer.on('error', (error) => done(String(error)));
    answer.on('aborted', () => done('aborted'));
  });
  request.on('timeout', () => { done('timeout'); request.destroy(); });
  request.on('error', (error) => done(`${error}${request.reusedSocket ? ' (kept)' : ''}`));
  request.end(body);
}

const timer = setInterval(() => {
  const due = (Date.now() - start) / 1000 * rate;
  for (; number < due && number < seconds * rate; number += 1) call(hosts[(number >> 2) % hosts.length]);
  if (number >= seconds * rate) {
    clearInterval(timer);
    const wait = setInterval(() => {
      if (open) return;
      clearInterval(wait);
      console.log(JSON.stringify({ calls, errors }));
      process.exit(0);
    }, 20);
  }
}, 10);
