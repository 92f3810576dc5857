/** One axis of a chart: from the first tick to the last, evenly or by powers of ten. */
interface Axis {
  readonly label: string;
  readonly scale: 'even' | 'powers';
  readonly ticks: readonly (readonly [value: number, text: string])[];
}

interface Curve {
  readonly label: string;
  readonly colour: string;
  readonly dashed?: boolean;
  readonly points: readonly (readonly [x: number, y: number])[];
  /** Where the label stands, in the chart's own values. */
  readonly labelAt: readonly [x: number, y: number];
}

export interface Chart {
  readonly title: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly curves: readonly Curve[];
}

const WIDTH = 460;
const HEIGHT = 340;
const LEFT = 62;
const RIGHT = 28;
const TOP = 36;
const BOTTOM = 50;

/** Charts side by side, as an SVG document of this title. */
export function drawCharts(title: string, charts: readonly Chart[]): string {
  const width = WIDTH * charts.length;
  const drawn = charts.map((chart, i) => `<g transform="translate(${i * WIDTH} 0)">\n${draw(chart)}\n</g>`);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${HEIGHT}" viewBox="0 0 ${width} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<title>${title}</title>`,
    `<rect width="${width}" height="${HEIGHT}" fill="white"/>`,
    ...drawn,
    '</svg>\n',
  ].join('\n');
}

function draw({ title, x, y, curves }: Chart): string {
  const px = placer(x, LEFT, WIDTH - RIGHT);
  const py = placer(y, HEIGHT - BOTTOM, TOP);
  const [left, right, top, bottom] = [LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM];
  const lines = [text(WIDTH / 2, 20, title, 'middle', '#111', 'font-weight="bold"')];
  for (const [value, name] of x.ticks) {
    lines.push(line(px(value), top, px(value), bottom, '#ddd'), text(px(value), bottom + 16, name, 'middle'));
  }
  for (const [value, name] of y.ticks) {
    lines.push(line(left, py(value), right, py(value), '#ddd'), text(left - 6, py(value) + 4, name, 'end'));
  }
  lines.push(text((left + right) / 2, HEIGHT - 12, x.label, 'middle'));
  const middle = (top + bottom) / 2;
  lines.push(text(14, middle, y.label, 'middle', '#333', `transform="rotate(-90 14 ${number(middle)})"`));
  for (const { points, colour, dashed, label, labelAt } of curves) {
    const path = points.map(([a, b]) => `${number(px(a))},${number(py(b))}`).join(' ');
    const dash = dashed === true ? ' stroke-dasharray="6 4"' : '';
    lines.push(`<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="2"${dash}/>`);
    lines.push(text(px(labelAt[0]), py(labelAt[1]), label, 'start', colour));
  }
  return lines.join('\n');
}

/** From values of an axis to pixels; what lies beyond the ends is put there. */
function placer({ scale, ticks }: Axis, from: number, to: number): (value: number) => number {
  const measure = scale === 'even' ? (value: number) => value : Math.log10;
  const [low, high] = [measure(ticks[0]![0]), measure(ticks.at(-1)![0])];
  return (value) => {
    const share = Math.min(1, Math.max(0, (measure(value) - low) / (high - low)));
    return from + share * (to - from);
  };
}

function line(x1: number, y1: number, x2: number, y2: number, colour: string): string {
  return `<line x1="${number(x1)}" y1="${number(y1)}" x2="${number(x2)}" y2="${number(y2)}" stroke="${colour}"/>`;
}

function text(x: number, y: number, words: string, anchor: string, colour = '#333', more = ''): string {
  const attributes = `x="${number(x)}" y="${number(y)}" text-anchor="${anchor}" fill="${colour}"`;
  return `<text ${attributes}${more === '' ? '' : ` ${more}`}>${words}</text>`;
}

/** A tenth of a pixel is finer than any screen. */
function number(value: number): string {
  return String(Math.round(value * 10) / 10);
}
