// The dashboard in a headless Chromium: it renders, moves, shows a backend that dies, drains one by
// a click, refuses without the token, comes back after a kill, and has nothing that axe-core objects
// to. `.ci/page` runs it; SHOTS=docs/dashboard also takes the pictures that are kept there.
'use strict';

const { chromium } = require('playwright-core');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');

const binary = process.env.RINGWAY || 'target/debug/ringway';
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ringway-page-'));
const config = path.join(folder, 'r.toml');
const PATIENCE = 30000;
let child, checks = 0;

function expect(holds, what) {
  if (!holds) throw new Error(what);
  checks += 1;
  console.log('good: ' + what);
}
const free = () => new Promise((done) => {
  const server = net.createServer().listen(0, '127.0.0.1', () => { const { port } = server.address(); server.close(() => done(port)); });
});
const origin = (mean) => new Promise((done) => {
  const server = http.createServer((request, answer) => {
    const status = Number((request.url.match(/^\/status\/(\d+)/) || [])[1] || 200);
    setTimeout(() => { answer.writeHead(status); answer.end('x'.repeat(50 + Math.random() * 3000)); }, -Math.log(1 - Math.random()) * mean);
  }).listen(0, '127.0.0.1', () => done(server));
});
function start() {
  child = spawn(binary, ['run', '-c', config], { stdio: ['ignore', 'ignore', process.env.SAID ? 'inherit' : 'ignore'], env: { ...process.env, RUNTIME_DIRECTORY: folder, STATE_DIRECTORY: folder } });
}
async function serves(port) {
  for (let tries = 0; tries < 300; tries += 1) {
    const is = await new Promise((done) => net.connect(port, '127.0.0.1').on('connect', function () { this.destroy(); done(true); }).on('error', () => done(false)));
    if (is) return;
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error('it does not serve');
}

async function main() {
  const origins = await Promise.all([3, 4, 25].map(origin));
  const [web, admin] = [await free(), await free()];
  const at = origins.map((server) => `127.0.0.1:${server.address().port}`);
  fs.writeFileSync(path.join(folder, 'token'), 'secret\n');
  fs.writeFileSync(config, `[global]\nadmin = { bind = "127.0.0.1:${admin}", token-file = "${folder}/token" }
state-dir = "${folder}"\ninstance = "lb-1"\n[listener.web]\nbind = "127.0.0.1:${web}"\npool = "app"
[[route]]\nname = "api"\npath = "/api/"\npool = "api"
[pool.app]\nbackends = [{ name = "a", address = "${at[0]}" }, { name = "b", address = "${at[1]}" }, { name = "slow", address = "${at[2]}" }]
health = { path = "/", interval = "200ms", timeout = "200ms", fall = 2, rise = 1 }
retry = { on = ["connect-failure", "503"] }
[pool.api]\nbackends = [{ name = "api-1", address = "${at[0]}" }]\nbalance = "least-connections"\n`);
  start();
  await serves(admin);
  const agent = new http.Agent({ keepAlive: true });
  const paths = ['/', '/', '/', '/api/x', '/api/y', '/status/404', '/'];
  const load = setInterval(() => {
    const url = Math.random() < 0.005 ? '/status/503' : paths[Math.floor(Math.random() * paths.length)];
    http.get({ agent, host: '127.0.0.1', port: web, path: url }, (answer) => answer.resume()).on('error', () => {});
  }, 8);

  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox'] });
  const page = await browser.newPage({ viewport: { width: 1440, height: 1000 } });
  const complaints = [], foreign = [];
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('console', (message) => { if (message.type() === 'error' && !/ERR_|status of 401/.test(message.text())) complaints.push(message.text()); });
  page.on('request', (request) => { if (new URL(request.url()).host !== `127.0.0.1:${admin}`) foreign.push(request.url()); });
  await page.goto(`http://127.0.0.1:${admin}/`);
  const until = (what) => page.waitForFunction(what, null, { timeout: PATIENCE });
  const live = () => until(() => document.querySelector('#link').className === 'live');
  await live();
  await until(() => Number(document.querySelector('#numbers dd').textContent) > 10);
  expect(true, 'it is live, and traffic moves');
  await until(() => document.querySelector('.sentence.well'));
  expect(true, 'it says that all is well');

  await until(() => document.querySelector('#recent .tries li'));
  const tries = await page.locator('#recent .tries').first().textContent();
  expect(/503 in body, [0-9.]+ ms.*, asked again: 503/.test(tries), `a failed request shows its tries: ${tries}`);

  // What this machine is late by, which nobody's page could make up for.
  let late = 0, last = Date.now();
  const clock = setInterval(() => { const now = Date.now(); late += Math.max(0, now - last - 60); last = now; }, 50);
  const began = Date.now();
  origins[1].closeAllConnections();
  origins[1].close();
  await until(() => document.querySelector('#trouble').textContent.includes('app/b is down'));
  const took = Date.now() - began;
  clearInterval(clock);
  expect(took < 2000 + late, `a backend that dies is shown within 2 s: after ${took} ms, of which the machine was late by ${late}`);

  const drain = page.getByRole('button', { name: 'Drain slow' });
  await drain.click();
  await until(() => document.querySelector('#said').textContent.startsWith('Refused'));
  expect(true, 'without the token nothing is changed');
  const reached = await page.evaluate(() => document.activeElement.getAttribute('aria-label'));
  expect(reached === 'Drain slow', 'the focus stays where it is while numbers move');
  await page.getByLabel('Token').fill('secret');
  await drain.focus();
  await page.keyboard.press('Enter');
  await until(() => document.querySelector('#pool-list').textContent.includes('draining'));
  expect(true, 'with the token a backend drains, by the keyboard');
  await page.getByRole('button', { name: 'Undo' }).click();
  await until(() => ![...document.querySelectorAll('.pill')].some((pill) => pill.textContent === 'draining'));
  expect(true, 'and an undo brings it back');

  child.kill('SIGKILL');
  await until(() => document.querySelector('#link').className === 'stale');
  start();
  await live();
  expect((await page.locator('#events').textContent()).includes('started'), 'it says when it is stale, and comes back by itself');
  expect(complaints.length === 0, 'nothing is complained of: ' + complaints.join('; '));
  expect(foreign.length === 0, 'nothing is asked of anybody else: ' + foreign.join(', '));
  await until(() => data.seconds.length > 2);
  expect(await page.evaluate(() => data.seconds.length > 2 && data.seconds.every((it) => it.heat && !it.pools)), 'of a second what is drawn is kept, and no more');
  await page.close();

  // Pictures have the five minutes that the charts have room for.
  if (process.env.SHOTS) await new Promise((done) => setTimeout(done, 290000));
  const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
  for (const width of [360, 768, 1440]) {
    for (const colorScheme of ['light', 'dark']) {
      const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme, bypassCSP: true });
      const shown = await context.newPage();
      await shown.goto(`http://127.0.0.1:${admin}/`);
      await shown.waitForFunction(() => document.querySelector('#link').className === 'live', null, { timeout: PATIENCE });
      await shown.waitForTimeout(3000);
      if (process.env.SHOTS) await shown.screenshot({ path: `${process.env.SHOTS}/${width}-${colorScheme}.png`, fullPage: true });
      const wide = await shown.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      expect(wide <= 0, `nothing is wider than ${width} px`);
      await shown.evaluate(axe);
      const found = await shown.evaluate(async () => (await window.axe.run()).violations.map((it) => `${it.id} ${it.nodes[0].html}`));
      expect(found.length === 0, `axe-core finds nothing at ${width} px, ${colorScheme}: ${found.join('; ')}`);
      await context.close();
    }
  }
  clearInterval(load);
  await browser.close();
  console.log(`${checks} checks`);
}

const end = (code) => { if (child) child.kill('SIGKILL'); fs.rmSync(folder, { recursive: true, force: true }); process.exit(code); };
setTimeout(() => { console.error('it took too long'); end(1); }, process.env.SHOTS ? 600000 : 240000).unref();
main().then(() => end(0), (error) => { console.error('FAILED: ' + error.message); end(1); });
