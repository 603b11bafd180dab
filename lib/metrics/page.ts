import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Answer } from './http-server.js';
import { pageStyle } from './page-style.js';

/**
 * The script for the browser, as the compiler left it; within the page it is no file of its own.
 */
const script = readFileSync(new URL('./page/script.js', import.meta.url), 'utf8');

const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>virtproxyd</title>
<link rel="icon" id="icon" href="data:,">
<style>${pageStyle}</style>
</head>
<body data-health="unknown">
<header>
<span class="dot"></span>
<div><h1 id="headline" role="status">…</h1><p id="summary"></p></div>
<p class="who"><strong id="identity">virtproxyd</strong><span id="age"></span></p>
</header>
<noscript>This page needs JavaScript. The same figures are in <a href="status.json">status.json</a>.</noscript>
<ul id="warnings" hidden></ul>
<main>
<section class="tiles">
<div class="card calls"><h2>Calls a second</h2>
<p class="figure" id="rate">–</p><p class="note" id="rate-note"></p>
<svg viewBox="0 0 120 32" preserveAspectRatio="none" aria-hidden="true"><polygon id="area"/><polyline id="line"/></svg></div>
<div class="card"><h2>Latency</h2><p class="figure" id="latency">–</p><p class="note" id="latency-note"></p></div>
<div class="card"><h2>Clients</h2><p class="figure" id="clients">–</p><p class="note" id="clients-note"></p></div>
<div class="card"><h2>In flight</h2><p class="figure" id="in-flight">–</p><p class="note" id="in-flight-note"></p></div>
<div class="card"><h2>Traffic</h2><p class="figure" id="traffic">–</p><p class="note" id="traffic-note"></p></div>
</section>
<section class="tables">
<div class="card broad"><h2>Daemons</h2><table>
<thead><tr><th>Daemon<th class="number">Open<th class="number">Calls/s<th class="number wide">Median<th class="number">99 % in<th class="number">Failures<th class="number wide">Restarts</tr></thead>
<tbody id="daemons"></tbody></table></div>
<div class="card slim"><h2>Since the start</h2><dl id="history"></dl></div>
<div class="card broad"><h2>Workers</h2><table>
<thead><tr><th>No.<th class="wide">Process<th>State<th class="number wide">Gen.<th class="number">Clients<th class="number">CPU<th class="number wide">Lag<th class="number">Memory</tr></thead>
<tbody id="workers"></tbody></table></div>
<div class="card slim"><h2>Clients</h2><table>
<thead><tr><th>Over<th class="number">Served<th class="number">Login<th class="number">Waiting<th class="number">Accepted</tr></thead>
<tbody id="transports"></tbody></table></div>
</section>
</main>
<footer>Refreshed every two seconds. For machines: <a href="metrics">metrics</a>, <a href="status.json">status.json</a>, <a href="healthz">healthz</a>, <a href="readyz">readyz</a>.</footer>
<script type="module">${script}</script>
</body>
</html>
`;

const hashOf = (text: string): string =>
  `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

/** Nothing but what is in the page, and the status from where it came. */
const policy = [
  "default-src 'none'",
  `style-src ${hashOf(pageStyle)}`,
  `script-src ${hashOf(script)}`,
  "connect-src 'self'",
  'img-src data:',
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** The page for people: one file, which fetches the status by itself. */
export function statusPage(): Answer {
  return {
    status: 200,
    contentType: 'text/html; charset=utf-8',
    body: page,
    headers: { 'Content-Security-Policy': policy },
  };
}
