/**
 * The status page's style sheet. Both colour schemes share everything but the colours at its head.
 */
export const pageStyle = `
:root {
  color-scheme: light dark;
  --back: #f5f6f8;
  --card: #ffffff;
  --line: #e3e6eb;
  --text: #1c2330;
  --quiet: #667085;
  --bad: #b42318;
  --accent: #3565c9;
  --ok: #2e9e5b;
  --warn: #d9901a;
  --down: #d13c3c;
  --health: #8a919c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #12151b;
    --card: #1a1f28;
    --line: #2a313d;
    --text: #e6e9ef;
    --quiet: #98a2b3;
    --bad: #ff8a80;
    --accent: #7ea6ff;
    --ok: #3fbf75;
    --warn: #e5a63a;
    --down: #f06a6a;
  }
}
[data-health="ok"] { --health: var(--ok); }
[data-health="degraded"] { --health: var(--warn); }
[data-health="down"] { --health: var(--down); }
* { box-sizing: border-box; margin: 0; }
body {
  background: var(--back);
  color: var(--text);
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  padding: 24px max(16px, calc(50vw - 560px)) 40px;
}
[data-health="unknown"] main { opacity: 0.45; }
header { display: flex; align-items: center; gap: 8px 16px; margin-bottom: 20px; }
header > div { min-width: 0; flex: 1; }
.dot {
  width: 18px; height: 18px; border-radius: 50%; background: var(--health); flex: none;
  box-shadow: 0 0 0 6px color-mix(in srgb, var(--health) 18%, transparent);
  margin: 0 6px;
}
h1 { font-size: 26px; font-weight: 650; line-height: 1.2; letter-spacing: -0.01em; }
#summary { color: var(--quiet); }
.who { text-align: right; font-size: 13px; color: var(--quiet); }
.who strong { display: block; color: var(--text); font-weight: 600; font-size: 14px; }
#warnings { list-style: none; padding: 0; margin-bottom: 20px; display: grid; gap: 8px; }
#warnings[hidden] { display: none; }
#warnings li {
  --tone: var(--warn);
  background: color-mix(in srgb, var(--tone) 10%, var(--card));
  border: 1px solid color-mix(in srgb, var(--tone) 35%, var(--line));
  border-left: 4px solid var(--tone);
  border-radius: 8px; padding: 10px 14px; overflow-wrap: anywhere;
}
#warnings li.error { --tone: var(--down); }
.tiles { display: grid; gap: 12px; grid-template-columns: 2.2fr 1fr 1fr 1fr 1.25fr; margin-bottom: 12px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; min-width: 0; }
h2 { font-size: 13px; font-weight: 600; color: var(--quiet); }
.figure { font-size: 27px; font-weight: 650; line-height: 1.25; letter-spacing: -0.02em; font-variant-numeric: tabular-nums; white-space: nowrap; }
.note { font-size: 13px; color: var(--quiet); }
.note.bad { color: var(--bad); }
.calls { display: grid; grid-template-columns: auto 1fr; gap: 0 20px; align-content: start; }
.calls svg { width: 100%; height: 74px; grid-column: 2; grid-row: 1 / span 3; border-bottom: 1px solid var(--line); }
polyline { fill: none; stroke: var(--accent); stroke-width: 1.5; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
polygon { fill: color-mix(in srgb, var(--accent) 16%, transparent); }
.tables { display: grid; gap: 12px; grid-template-columns: repeat(12, 1fr); }
.tables .card { grid-column: span 6; }
.tables .broad { grid-column: span 7; }
.tables .slim { grid-column: span 5; }
table { width: 100%; border-collapse: collapse; margin-top: 8px; font-size: 14px; }
th { text-align: left; font-weight: 500; font-size: 12px; color: var(--quiet); white-space: nowrap; }
th, td { padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td { overflow-wrap: anywhere; }
th:last-child, td:last-child { padding-right: 0; }
tr:last-child td { border-bottom: 0; padding-bottom: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.quiet { color: var(--quiet); }
.bad { color: var(--bad); }
.bar { display: block; height: 3px; border-radius: 2px; margin-top: 3px; min-width: 40px; background: var(--line); overflow: hidden; }
.bar::before { content: ""; display: block; height: 100%; width: calc(var(--share) * 100%); background: var(--accent); }
dl { display: grid; grid-template-columns: auto 1fr; gap: 6px 16px; margin-top: 10px; font-size: 14px; }
dt { color: var(--quiet); }
dd { text-align: right; overflow-wrap: anywhere; }
footer { margin-top: 20px; font-size: 13px; color: var(--quiet); }
footer a { color: inherit; }
@media (max-width: 900px) {
  .tiles { grid-template-columns: repeat(4, 1fr); }
  .calls { grid-column: 1 / -1; }
  .tables .card { grid-column: 1 / -1; }
}
@media (max-width: 520px) {
  body { padding: 16px 12px 32px; }
  h1 { font-size: 22px; }
  header { flex-wrap: wrap; align-items: start; gap: 2px 16px; }
  .dot { margin-top: 5px; }
  #summary { font-size: 14px; }
  .note { font-size: 12px; }
  .who { margin-left: 46px; width: 100%; text-align: left; }
  .who strong { display: inline; font-weight: 500; font-size: 13px; color: inherit; }
  .who strong::after { content: " · "; }
  .tiles { grid-template-columns: repeat(2, 1fr); gap: 8px; margin-bottom: 8px; }
  .tables { gap: 8px; }
  .card { padding: 12px 14px; }
  .figure { font-size: 24px; }
  .wide { display: none; }
}
`;
