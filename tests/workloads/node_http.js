// node: an http server and client, files, child processes, worker threads, timers.
// workload: timeout=120
const http = require('http'), fs = require('fs'), os = require('os'), crypto = require('crypto'), net = require('net');
const { spawn, execFileSync, fork } = require('child_process');
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const say = (name) => console.log('### ' + name);
if (!isMainThread) {
  let s = 0;
  for (let i = 0; i < 1e6; i++) s = (s + i * workerData) % 1000003;
  parentPort.postMessage(s);
} else if (process.argv[2] === 'child') {
  process.on('message', (m) => { process.send(m * 2); process.disconnect(); });
} else {
  main().then(() => process.exit(0), (e) => { console.log(e.stack); process.exit(1); });
}
function get(port, path, body) {
  return new Promise((resolve, reject) => {
    const request = http.request({ port, path, host: '127.0.0.1', method: body ? 'POST' : 'GET' }, (response) => {
      let text = '';
      response.on('data', (d) => text += d).on('end', () => resolve(response.statusCode + ' ' + text));
    }).on('error', reject);
    request.end(body);
  });
}
async function main() {
  say('http');
  const server = http.createServer((request, response) => {
    const hash = crypto.createHash('md5');
    request.on('data', (d) => hash.update(d)).on('end', () => {
      if (request.url === '/missing') response.statusCode = 404;
      response.end(request.method + ' ' + request.url + ' ' + hash.digest('hex'));
    });
  });
  await new Promise((r) => server.listen(0, '127.0.0.1', r));
  const port = server.address().port;
  console.log(await get(port, '/hello'), await get(port, '/missing'));
  console.log(await get(port, '/post', Buffer.alloc(1 << 20, 'x')));
  const many = await Promise.all(Array.from({ length: 200 }, (_, i) => get(port, '/' + i)));
  console.log(many.length, crypto.createHash('md5').update(many.join()).digest('hex'));
  server.close();
  say('unix-socket');
  const unix = net.createServer((c) => c.pipe(c)).listen('node.sock');
  await new Promise((r) => unix.on('listening', r));
  console.log(await new Promise((r) => { const c = net.connect('node.sock', () => c.write('echo')); c.on('data', (d) => { r(d.toString()); c.end(); }); }));
  unix.close();
  say('files');
  fs.mkdirSync('made/deep', { recursive: true });
  await Promise.all(Array.from({ length: 100 }, (_, i) => fs.promises.writeFile('made/' + i, String(i).repeat(1000))));
  const sizes = await Promise.all(fs.readdirSync('made').filter((n) => n !== 'deep').map((n) => fs.promises.stat('made/' + n)));
  console.log(sizes.reduce((s, x) => s + x.size, 0));
  await fs.promises.rm('made', { recursive: true });
  console.log(fs.existsSync('made'));
  await new Promise((r) => fs.createReadStream('/bin/bash').pipe(fs.createWriteStream('copy')).on('finish', r));
  console.log(fs.readFileSync('copy').equals(fs.readFileSync('/bin/bash')));
  say('processes');
  console.log(execFileSync('sh', ['-c', 'echo $0; exit 0']).toString().trim());
  const cat = spawn('cat');
  cat.stdin.end('through cat');
  console.log(await new Promise((r) => { let t = ''; cat.stdout.on('data', (d) => t += d); cat.on('close', (code) => r(t + ' ' + code)); }));
  const sleeper = spawn('sleep', ['100']);
  setTimeout(() => sleeper.kill(), 50);
  console.log(await new Promise((r) => sleeper.on('exit', (code, signal) => r(code + ' ' + signal))));
  const child = fork(__filename, ['child']);
  child.send(21);
  console.log(await new Promise((r) => child.on('message', r)));
  say('workers');
  console.log(await Promise.all([1, 2, 3, 4].map((n) => new Promise((r, j) =>
    new Worker(__filename, { workerData: n }).on('message', r).on('error', j)))));
  say('timers-and-crypto');
  const start = Date.now();
  await new Promise((r) => setTimeout(r, 100));
  console.log(Date.now() - start >= 99);
  console.log(await new Promise((r) => crypto.pbkdf2('p', 's', 5000, 16, 'sha1', (e, k) => r(k.toString('hex')))));
  console.log(os.platform(), os.cpus().length > 0, process.memoryUsage().rss > 1e6);
  console.log(require('zlib').gunzipSync(require('zlib').gzipSync('z'.repeat(1e6))).length);
  process.once('SIGUSR2', () => console.log('usr2'));
  process.kill(process.pid, 'SIGUSR2');
  await new Promise((r) => setTimeout(r, 50));
}
