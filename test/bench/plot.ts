import { medianOf, type Report, type RowResults } from './results.js';
import { formatFigure } from './table.js';

interface PanelChoice {
  readonly row: string;
  readonly metric: string;
  readonly title: string;
}

/** What the plot shows of a report, as far as it was measured. */
const choices: readonly PanelChoice[] = [
  { row: '16x1', metric: 'rate', title: 'calls/s, 16 clients × 1 in flight' },
  { row: '4x4', metric: 'rate', title: 'calls/s, 4 clients × 4 in flight' },
  { row: '1x1', metric: 'p50', title: 'median latency of a call, 1 client, µs' },
  { row: '16x1', metric: 'cpu', title: 'CPU time of a call, µs' },
  { row: 'opens-1', metric: 'p50', title: 'connect to first answer, median, µs' },
  { row: 'volume-download', metric: 'time', title: 'volume download with virsh, s' },
  { row: 'idle', metric: 'many', title: 'KiB that each of 5000 idle clients adds' },
  { row: 'start', metric: 'time', title: 'start to first answered call, ms' },
];

const size = {
  width: 920,
  margin: 24,
  head: 64,
  bar: 18,
  gap: 6,
  title: 30,
  label: 150,
  value: 70,
};
const columns = 2;

const style = `
  svg { font: 13px system-ui, sans-serif; }
  .page { fill: #ffffff; } text { fill: #1f2328; } .faint { fill: #59636e; font-size: 11px; font-weight: 400; }
  .heading { font-weight: 600; }
  .direct { fill: #afb8c1; } .ours { fill: #0969da; } .relay { fill: #8c959f; } .libvirt { fill: #bc4c00; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; } text { fill: #e6edf3; } .faint { fill: #9198a1; }
    .direct { fill: #3d444d; } .ours { fill: #4493f8; } .relay { fill: #656c76; } .libvirt { fill: #db6d28; }
  }`;

/** Bars of a report's main rows as SVG; `kindOf` gives a competitor's class. */
export function renderPlot(report: Report, kindOf: (competitor: string) => string): string {
  const panels = choices.flatMap((choice) => {
    const row = report.rows.find(({ name }) => name === choice.row);
    return row ? [{ ...choice, row }] : [];
  });
  const width = (size.width - size.margin * (columns + 1)) / columns;
  let y = size.head;
  const parts: string[] = [];
  for (let at = 0; at < panels.length; at += columns) {
    const line = panels.slice(at, at + columns);
    const drawn = line.map((panel, column) => {
      const x = size.margin + column * (width + size.margin);
      return drawPanel(panel, { x, y, width }, kindOf);
    });
    parts.push(...drawn.map(({ svg }) => svg));
    y += Math.max(...drawn.map(({ height }) => height)) + size.margin;
  }
  const { machine, date, repeats, seconds } = report;
  const subtitle = `${date.slice(0, 10)} · ${machine.cpu} · ${machine.cores} cores · Node.js ${machine.node} · medians of ${repeats} × ${seconds} s`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size.width} ${y}" width="${size.width}" height="${y}" role="img" aria-label="Benchmark of virtproxyd">
<style>${style}
</style>
<rect class="page" width="100%" height="100%"/>
<text class="heading" x="${size.margin}" y="28">Proxies compared, in front of a daemon that answers at once</text>
<text class="faint" x="${size.margin}" y="46">${escaped(subtitle)}</text>
${parts.join('\n')}
</svg>
`;
}

interface Panel {
  readonly row: RowResults;
  readonly metric: string;
  readonly title: string;
}

function drawPanel(
  { row, metric: key, title }: Panel,
  { x, y, width }: { readonly x: number; readonly y: number; readonly width: number },
  kindOf: (competitor: string) => string,
): { readonly svg: string; readonly height: number } {
  const metric = row.metrics[key];
  const bars = Object.keys(row.competitors).flatMap((name) => {
    const value = medianOf(row, name, key);
    return value === null ? [] : [{ name, value }];
  });
  const most = Math.max(...bars.map(({ value }) => value));
  const longest = width - size.label - size.value;
  const better = metric?.better === 'more' ? 'more is better' : 'less is better';
  const lines = bars.map(({ name, value }, index) => {
    const top = y + size.title + index * (size.bar + size.gap);
    const length = Math.max(1, (value / most) * longest);
    const middle = top + size.bar - 5;
    const text = formatFigure(value, metric?.digits ?? 0);
    return [
      `<text x="${x}" y="${middle}">${escaped(name)}</text>`,
      `<rect class="${kindOf(name)}" x="${x + size.label}" y="${top}" width="${length.toFixed(1)}" height="${size.bar}" rx="2"/>`,
      `<text x="${(x + size.label + length + 6).toFixed(1)}" y="${middle}">${text}</text>`,
    ].join('');
  });
  const heading = `<text class="heading" x="${x}" y="${y + 14}">${escaped(title)} <tspan class="faint">${better}</tspan></text>`;
  const height = size.title + bars.length * (size.bar + size.gap);
  return { svg: [heading, ...lines].join('\n'), height };
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');
}
