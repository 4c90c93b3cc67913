// The dashboard: one stream of frames drives everything on the page.
'use strict';

const $ = (id) => document.getElementById(id);
const SECONDS = 300, HALF_MINUTES = 720, SPANS = { seconds: SECONDS, halfMinutes: HALF_MINUTES * 30 }, EVENTS = 200, RECENT = 50, SPARK = 60;
const data = { seconds: [], halfMinutes: [] };
const sparks = new Map();
let range = 'seconds', frame = null, lastFrameAt = 0, undo = null;

function make(tag, attributes, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === 'text') element.textContent = value;
    else if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...inside);
  return element;
}
// Only what has changed is touched, so that selections and the focus stay.
function say(element, text) { if (element.textContent !== text) element.textContent = text; }
function mark(element, name) { if (element.className !== name) element.className = name; }

const number = (n) => n == null ? '–' : n >= 1e6 ? (n / 1e6).toFixed(1) + ' M' : n >= 1e4 ? (n / 1e3).toFixed(1) + ' k'
  : n >= 100 || Number.isInteger(n) ? String(Math.round(n)) : n.toFixed(n < 1 ? 2 : 1);
const ms = (t) => t == null ? '–' : t >= 1000 ? (t / 1000).toFixed(2) + ' s' : t >= 10 ? t.toFixed(0) : t.toFixed(2);
const bytes = (n) => n >= 1e9 ? (n / 1e9).toFixed(2) + ' GB' : n >= 1e6 ? (n / 1e6).toFixed(1) + ' MB'
  : n >= 1e3 ? (n / 1e3).toFixed(n >= 1e5 ? 0 : 1) + ' kB' : Math.round(n) + ' B';
const clock = (at) => new Date(at).toLocaleTimeString([], { hour12: false });
function when(at) {
  const then = new Date(at), now = new Date();
  return then.toDateString() === now.toDateString() ? clock(then) : then.toLocaleDateString() + ' ' + clock(then);
}
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// ---- what is wrong ----
function showTrouble(all) {
  const list = all.length ? all : [{ level: 'well', text: 'All is well: every backend that should serve does.' }];
  const box = $('trouble');
  while (box.children.length > list.length) box.lastChild.remove();
  list.forEach((it, place) => {
    const p = box.children[place] || box.appendChild(make('p', {}, make('span'), make('small')));
    if (!p.firstElementChild) p.replaceChildren(make('span'), make('small'));
    mark(p, 'sentence ' + it.level);
    say(p.firstElementChild, it.text);
    say(p.lastElementChild, it.since ? ' since ' + when(it.since) : '');
  });
  document.title = (all.some((it) => it.level === 'error') ? '✖ ' : all.some((it) => it.level === 'warn') ? '! ' : '') + 'Ringway';
}

// ---- numbers and charts ----
function showNumbers(it) {
  const t = it.times || [];
  const rows = [
    ['Requests/s', number(it.requests)],
    ['5xx/s', number(it.classes[5]), it.classes[5] > 0],
    ['p50 ms', ms(t[0])], ['p90 ms', ms(t[1])], ['p99 ms', ms(t[2])], ['p99.9 ms', ms(t[3])],
    ['Ringway p99 ms', it.own ? ms(it.own[2]) : '–'],
    ['In flight', number(it.inFlight)], ['Waiting', number(it.queued), it.queued > 0],
    ['Connections', number(it.connections)], ['In', bytes(it.bytesIn) + '/s'], ['Out', bytes(it.bytesOut) + '/s'],
  ];
  const box = $('numbers');
  rows.forEach(([name, value, bad], place) => {
    const div = box.children[place] || box.appendChild(make('div', {}, make('dt', { text: name }), make('dd')));
    mark(div, bad ? 'bad' : '');
    say(div.lastElementChild, value);
  });
}

let charts = [];
function makeCharts() {
  charts.forEach((chart) => chart.destroy());
  const axis = { stroke: colour('--quiet'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false } };
  const times = (u, splits) => splits.map((s) => new Date(s * 1000).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', hour12: false,
    second: splits.length > 1 && splits[1] - splits[0] < 60 ? '2-digit' : undefined }));
  const chart = (id, series, scales) => new uPlot({
    width: $(id).clientWidth || 300, height: 190, scales: { x: { time: true, range: (u, least, most) => [most - SPANS[range], most] }, ...scales },
    axes: [{ ...axis, values: times }, { ...axis, size: 48 }], cursor: { drag: { x: false, y: false } },
    legend: { live: true },
    series: [{ value: (u, v) => v == null ? '–' : clock(v * 1000) }, ...series.map(([label, name, fill]) => ({
      label, stroke: colour(name), width: 1.5, points: { show: false },
      fill: fill ? colour(name) + '33' : undefined, value: (u, v) => v == null ? '–' : number(v),
    }))],
  }, [[]], $(id));
  charts = [
    chart('c-requests', [['2xx', '--c2', true], ['3xx', '--c3'], ['4xx', '--c4'], ['5xx', '--c5', true], ['none', '--c0']]),
    chart('c-times', [['p50', '--c2'], ['p90', '--c3'], ['p99', '--c4'], ['p99.9', '--c5']]),
  ];
  drawCharts();
}
function drawCharts() {
  const all = data[range];
  if (!charts.length || !all.length) return;
  const x = all.map((it) => it.at / 1000);
  const column = (of) => all.map(of);
  charts[0].setData([x, ...[2, 3, 4, 5, 0].map((c) => column((it) => it.classes[c]))]);
  charts[1].setData([x, ...[0, 1, 2, 3].map((q) => column((it) => it.times ? it.times[q] : null))]);
  drawHeat(all);
}
function canvasOf(canvas) {
  const scale = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * scale)) { canvas.width = Math.round(width * scale); canvas.height = Math.round(height * scale); }
  const g = canvas.getContext('2d');
  g.setTransform(scale, 0, 0, scale, 0, 0);
  g.clearRect(0, 0, width, height);
  return [g, width, height];
}
const HEAT = ['0.1', '0.25', '0.5', '1', '2.5', '5', '10', '25', '50', '100', '250', '500', '1 s', '2.5 s', '5 s', 'more'];
function drawHeat(all) {
  const [g, width, height] = canvasOf($('heat'));
  const left = 48, rows = HEAT.length, most = Math.max(1, ...all.map((it) => Math.max(...it.heat)));
  const kept = range === 'seconds' ? SECONDS : HALF_MINUTES, w = (width - left) / kept, h = height / rows;
  const rgb = colour('--heat'), last = all[all.length - 1].at, each = SPANS[range] * 1000 / kept;
  all.forEach((it) => {
    // Where it belongs by its time, as in the charts: while the process was away there is nothing.
    const x = left + (kept - 1 - Math.round((last - it.at) / each)) * w;
    if (x < left) return;
    it.heat.forEach((count, row) => {
      if (!count) return;
      g.fillStyle = `rgba(${rgb}, ${0.15 + 0.85 * Math.log1p(count) / Math.log1p(most)})`;
      g.fillRect(x, height - (row + 1) * h, Math.ceil(w), Math.ceil(h));
    });
  });
  g.fillStyle = colour('--quiet');
  g.font = '10px system-ui, sans-serif';
  HEAT.forEach((label, row) => { if (row % 3 === 0) g.fillText(label, 0, height - row * h - 2); });
}
function drawSpark(canvas, points) {
  const [g, width, height] = canvasOf(canvas);
  const most = Math.max(...points, 0.001);
  g.strokeStyle = colour('--c3');
  g.lineWidth = 1.5;
  g.beginPath();
  points.forEach((p, place) => g.lineTo(width - (points.length - place) * width / SPARK, height - 2 - p / most * (height - 4)));
  g.stroke();
}

// ---- pools ----
const path = (pool, backend) => `/api/v1/pools/${encodeURIComponent(pool)}/backends/${encodeURIComponent(backend)}`;
async function set(pool, backend, what, before) {
  const headers = { 'content-type': 'application/json' };
  if ($('token').value) headers.authorization = 'Bearer ' + $('token').value;
  let text;
  try {
    const answer = await fetch(path(pool, backend), { method: 'PATCH', headers, body: JSON.stringify(what) });
    if (answer.ok) {
      text = `${pool}/${backend}: ${Object.values(what)[0]}. `;
      undo = before && { pool, backend, what: before };
    } else {
      const error = await answer.json().catch(() => ({}));
      text = `Refused: ${error.error || answer.status}. `;
      undo = null;
    }
  } catch (error) { text = 'Not sent: the process does not answer. '; undo = null; }
  const said = $('said');
  said.replaceChildren(text);
  if (undo) {
    const { pool: p, backend: b, what: w } = undo;
    said.append(make('button', { type: 'button', text: 'Undo', onclick: () => set(p, b, w, null) }));
  }
}
const columns = [['Backend'], ['State'], ['Weight', 'n'], ['In flight', 'n'], ['Requests/s', 'n'], ['', ''], ['p50 ms', 'n'], ['p99 ms', 'n'], ['Errors/s', 'n'], ['So far', 'n'], ['Last probe'], ['Set']];
function poolOf(pool) {
  const box = make('div', { class: 'pool' });
  const head = make('div', { class: 'bar' }, make('h3', { text: pool.name }), make('p', { class: 'quiet' }));
  const heads = columns.map(([text, side]) => text ? make('th', { scope: 'col', class: side || '', text }) : make('td'));
  const body = make('tbody');
  const table = make('table', {}, make('thead', {}, make('tr', {}, ...heads)), body);
  box.append(head, make('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Pool ' + pool.name }, table));
  return Object.assign(box, { note: head.lastChild, body, rows: new Map() });
}
function rowOf(pool, backend) {
  const name = make('th', { scope: 'row', text: backend.name });
  const pill = make('span', { class: 'pill' }), why = make('small');
  const cells = Array.from({ length: 8 }, () => make('td', { class: 'n' }));
  const spark = make('canvas', { class: 'spark', 'aria-hidden': 'true' });
  const probe = make('td');
  const weight = make('input', { type: 'number', min: 0, max: 256, 'aria-label': `Weight of ${backend.name}` });
  const row = make('tr');
  const act = (text, state) => make('button', { type: 'button', text, 'aria-label': `${text} ${backend.name}`,
    onclick: () => set(pool, backend.name, { state }, { state: row.state }) });
  const acts = [act('Up', 'up'), act('Drain', 'draining'), act('Maintenance', 'maintenance')];
  weight.addEventListener('change', () => set(pool, backend.name, { weight: Number(weight.value) }, { weight: row.weight }));
  const [w, inFlight, rate, p50, p99, errors, total] = cells;
  row.append(name, make('td', {}, pill, why), w, inFlight, rate, make('td', {}, spark), p50, p99, errors, total, probe,
    make('td', {}, make('div', { class: 'acts' }, ...acts, weight)));
  columns.forEach(([text], place) => { if (text && place > 1 && place < columns.length - 1) row.children[place].dataset.of = text; });
  row.show = (it) => {
    const live = it.live || {}, times = live.times || [];
    const stopped = it.state === 'up' && it.breaker && it.breaker !== 'closed';
    row.state = ['draining', 'maintenance'].includes(it.state) ? it.state : 'up';
    row.weight = it.weight;
    say(pill, stopped ? 'breaker ' + it.breaker : it.state);
    mark(pill, 'pill ' + (stopped ? 'open' : it.state));
    say(why, (it.reason || '') + (it.since ? ', since ' + when(it.since) : ''));
    [it.weight, it.activeConnections, number(live.rate), ms(times[0]), ms(times[2]), number(live.errors), number(it.totalRequests)]
      .forEach((text, place) => say(cells[place], String(text)));
    say(probe, it.lastProbe ? `${it.lastProbe.result}, ${ms(it.lastProbe.ms)} ms` : '–');
    if (document.activeElement !== weight && weight.value !== String(it.weight)) weight.value = it.weight;
    acts.forEach((button, place) => { button.disabled = ['up', 'draining', 'maintenance'][place] === row.state; });
    drawSpark(spark, sparks.get(pool + '/' + it.name) || []);
  };
  return row;
}
const poolBoxes = new Map();
function keepSparks(pools) {
  pools.forEach((pool) => pool.backends.forEach((it) => {
    const key = pool.name + '/' + it.name, points = sparks.get(key) || [];
    points.push((it.live && it.live.rate) || 0);
    if (points.length > SPARK) points.shift();
    sparks.set(key, points);
  }));
}
function showPools(pools) {
  const list = $('pool-list');
  for (const [name, box] of poolBoxes) if (!pools.some((pool) => pool.name === name)) { box.remove(); poolBoxes.delete(name); }
  pools.forEach((pool) => {
    if (!poolBoxes.has(pool.name)) { poolBoxes.set(pool.name, poolOf(pool)); list.append(poolBoxes.get(pool.name)); }
    const box = poolBoxes.get(pool.name);
    const retries = Object.values(pool.retries || {}).reduce((sum, count) => sum + count, 0);
    say(box.note, `${pool.healthyBackends} of ${pool.totalBackends} healthy, ${pool.algorithm}`
      + (pool.queueMax ? `, ${pool.queued} of ${pool.queueMax} waiting` : '') + `, ${number(retries)} retries so far`);
    const names = new Set(pool.backends.map((it) => it.name));
    for (const [name, row] of box.rows) if (!names.has(name)) { row.remove(); box.rows.delete(name); }
    pool.backends.forEach((it) => {
      if (!box.rows.has(it.name)) { box.rows.set(it.name, rowOf(pool.name, it)); box.body.append(box.rows.get(it.name)); }
      box.rows.get(it.name).show(it);
    });
  });
}

// ---- routes, cores, flow, certificates ----
function rows(body, list, cells) {
  while (body.children.length > list.length) body.lastChild.remove();
  list.forEach((it, place) => {
    const texts = cells(it);
    const row = body.children[place] || body.appendChild(make('tr', {}, ...texts.map(([, side], column) =>
      make(column ? 'td' : 'th', column ? { class: side || '' } : { scope: 'row' }))));
    texts.forEach(([text], column) => say(row.children[column], String(text)));
  });
}
function showRest(it) {
  rows($('routes'), it.routes, (r) => [[r.name || 'no route'], [number(r.rate), 'n'], [number(r.errors), 'n'],
    [ms(r.times && r.times[0]), 'n'], [ms(r.times && r.times[2]), 'n'], [number(r.requests), 'n']]);
  const cores = $('cores');
  while (cores.children.length > it.cores.length) cores.lastChild.remove();
  it.cores.forEach((core, place) => {
    const row = cores.children[place] || cores.appendChild(make('div', { class: 'core' }, make('span', { text: 'core ' + place }),
      make('div', { class: 'track' }, make('i')), make('span', { class: 'quiet' })));
    const share = Math.round((core.busy || 0) * 100), bar = row.children[1].firstChild;
    bar.style.width = share + '%';
    mark(bar, share > 90 ? 'hot' : '');
    say(row.lastChild, `${share} % busy, ${number(core.rate)}/s, ${number(core.connections)} conns`);
  });
  $('certs-section').hidden = !it.certificates.length;
  rows($('certs'), it.certificates, (c) => [[c.names.join(', ') || '–'], [c.daysLeft == null ? '–' : c.daysLeft, 'n'], [c.file], [c.usedBy.join(', ')]]);
  showFlow(it);
}
const SVG = 'http://www.w3.org/2000/svg';
function showFlow(it) {
  const svg = $('flow'), width = svg.clientWidth || 400;
  const links = [], columns = [new Map(), new Map(), new Map(), new Map()];
  const node = (column, name) => { const all = columns[column]; if (!all.has(name)) all.set(name, { sum: 0, into: 0, out: 0 }); return all.get(name); };
  const link = (column, from, to, rate) => {
    node(column, from).sum += column ? 0 : rate;
    node(column + 1, to).sum += rate;
    links.push({ column, from, to, rate });
  };
  it.flows.forEach((f) => { link(0, f.listener, f.route || 'no route', f.rate); if (f.pool) link(1, f.route || 'no route', f.pool, f.rate); });
  it.pools.forEach((pool) => pool.backends.slice(0, 12).forEach((b) => link(2, pool.name, b.name, (b.live && b.live.rate) || 0)));
  const most = Math.max(1, ...columns.map((all) => Math.max(...[...all.values()].map((n) => n.sum), 0)));
  const rowsMost = Math.max(...columns.map((all) => all.size)), height = Math.max(120, rowsMost * 34);
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  svg.setAttribute('height', height);
  const x = (column) => 4 + column * (width - 130) / 3, thick = (rate) => 1 + 20 * rate / most;
  columns.forEach((all) => { let place = 0; for (const n of all.values()) n.y = (place++ + .5) * height / all.size; });
  const parts = [];
  const element = (tag, attributes, text) => {
    const e = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
    if (text) e.textContent = text;
    parts.push(e);
  };
  links.forEach(({ column, from, to, rate }) => {
    const a = columns[column].get(from), b = columns[column + 1].get(to), x1 = x(column) + 6, x2 = x(column + 1), mid = (x1 + x2) / 2;
    element('path', { d: `M${x1} ${a.y} C${mid} ${a.y} ${mid} ${b.y} ${x2} ${b.y}`, 'stroke-width': thick(rate).toFixed(1) });
  });
  columns.forEach((all, column) => { for (const [name, n] of all) {
    element('rect', { x: x(column), y: n.y - thick(n.sum) / 2, width: 6, height: thick(n.sum) });
    element('text', { x: x(column) + 10, y: n.y - 4 }, name.length > 18 ? name.slice(0, 17) + '…' : name);
    element('text', { x: x(column) + 10, y: n.y + 10, class: 'quiet' }, number(n.sum) + '/s');
  } });
  svg.replaceChildren(...parts);
}

// ---- events and single requests ----
function showEvent(it, first) {
  const of = [it.pool && it.backend ? `${it.pool}/${it.backend}` : it.pool, it.changes, it.cause, it.code, it.file,
    it.lasted_ms ? `after ${it.lasted_ms >= 60000 ? Math.round(it.lasted_ms / 60000) + ' min' : (it.lasted_ms / 1000).toFixed(1) + ' s'}` : '',
    it.by ? `by ${it.by}${it.from ? ' from ' + it.from : ''}` : ''].filter(Boolean).join(', ');
  const row = make('li', {}, make('time', { datetime: it.at, text: when(it.at) }), make('span', { class: it.level, text: it.message }), make('span', { text: of }));
  $('events').prepend(row);
  while ($('events').children.length > EVENTS) $('events').lastChild.remove();
}
function showRequest(it) {
  const why = it.code !== 'ok' ? it.code : it.status >= 500 ? 'answered so by the backend' : 'slow';
  const text = [when(it.at), it.request_id, it.status || '–', why, it.route || '–', it.backend ? `${it.pool}/${it.backend}` : it.pool || '–', it.attempts, it.ms == null ? '–' : ms(it.ms)];
  const row = make('tr', {}, ...text.map((value, column) => make(column ? 'td' : 'th', column ? { class: column > 5 ? 'n' : '' } : { scope: 'row', class: 'nowrap' })));
  text.forEach((value, column) => { row.children[column].textContent = value; });
  const box = make('tbody', {}, row);
  const tries = it.tries || [];
  if (tries.length) box.append(make('tr', { class: 'tries' }, make('td', { colspan: 8 }, make('ol', {}, ...tries.map((t, place) =>
    make('li', { text: `${t.backend}: ${t.fault ? `${t.fault} in ${t.phase}` : t.why === 'hedged' ? 'overtaken' : 'answered'}`
      + `, ${ms(t.ms)} ms${t.reused ? ', kept connection' : ''}${t.why ? (place < tries.length - 1 ? ', asked again: ' : ', not asked again: ') + t.why : ''}` }))))));
  $('recent').tHead.after(box);
  while ($('recent').tBodies.length > RECENT) $('recent').lastElementChild.remove();
}

// ---- the stream ----
function connect() {
  const stream = new EventSource('/api/v1/stream');
  const on = (word, what) => stream.addEventListener(word, (message) => what(JSON.parse(message.data)));
  on('history', (it) => {
    data.seconds = it.seconds; data.halfMinutes = it.halfMinutes;
    sparks.clear();
    for (const [key, rates] of Object.entries(it.sparks || {})) sparks.set(key, rates);
    $('events').replaceChildren();
    it.events.forEach((event) => showEvent(event));
    if (it.requests) { [...$('recent').tBodies].forEach((box) => box.remove()); it.requests.forEach(showRequest); }
    drawCharts();
  });
  on('halfMinute', (it) => { data.halfMinutes.push(it); if (data.halfMinutes.length > HALF_MINUTES) data.halfMinutes.shift(); });
  on('happened', (it) => showEvent(it));
  on('request', showRequest);
  on('frame', (it) => {
    frame = it; lastFrameAt = Date.now();
    const isNew = !data.seconds.length || data.seconds[data.seconds.length - 1].at !== it.at;
    // Of a thousand backends a frame is half a megabyte: what is drawn of it is kept.
    const { at, classes, times, heat } = it;
    if (isNew) { data.seconds.push({ at, classes, times, heat }); keepSparks(it.pools); }
    if (data.seconds.length > SECONDS) data.seconds.shift();
    if (document.hidden) return;
    say($('about'), `${it.instance || ''} ${it.version}, plan ${it.generation}`.trim());
    showTrouble(it.trouble); showNumbers(it); showPools(it.pools); showRest(it); drawCharts();
  });
  stream.onerror = () => { if (stream.readyState === EventSource.CLOSED) setTimeout(connect, 2000); };
}
function beat() {
  const link = $('link'), late = Date.now() - lastFrameAt > 3000;
  mark(link, lastFrameAt && !late ? 'live' : lastFrameAt ? 'stale' : '');
  say(link, !lastFrameAt ? 'connecting…' : late ? `stale: nothing new since ${clock(lastFrameAt)}` : 'live');
}

document.querySelectorAll('[data-range]').forEach((button) => button.addEventListener('click', () => {
  range = button.dataset.range;
  document.querySelectorAll('[data-range]').forEach((b) => b.setAttribute('aria-pressed', String(b === button)));
  drawCharts();
}));
const isDark = () => (document.documentElement.dataset.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
function showTheme() { $('theme').setAttribute('aria-pressed', String(isDark())); say($('theme'), isDark() ? 'Dark' : 'Light'); }
$('theme').addEventListener('click', () => { document.documentElement.dataset.theme = isDark() ? 'light' : 'dark'; showTheme(); makeCharts(); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { showTheme(); makeCharts(); });
let resizing = 0;
addEventListener('resize', () => { clearTimeout(resizing); resizing = setTimeout(makeCharts, 200); });
showTheme(); makeCharts(); connect(); setInterval(beat, 500);
