import { formatBytes, formatCount } from '../../api/figures.js';
import { type ImageInspection, inspectImage, type LayerInspection, planOf } from '../../api/pull.js';
import { type Column, formatCut, formatTable, jsonLine, printable } from '../format-text.js';
import type { OptionValues } from '../options.js';
import { createRenderer } from '../progress/renderer.js';
import { pullOptionsOf } from '../pull-options.js';
import { untilSignal } from '../signals.js';

/**
 * `zpull inspect IMAGE`: prints what the image consists of, and each layer's format with the
 * reason.
 */
export async function runInspect([image = '']: readonly string[], options: OptionValues): Promise<number> {
  const inspection = await inspect(image, options);
  process.stdout.write(options.json === true ? jsonLine(inspection) : inspectionText(inspection));
  return 0;
}

/** `zpull plan IMAGE`: prints what a pull would fetch and reuse. */
export async function runPlan([image = '']: readonly string[], options: OptionValues): Promise<number> {
  const inspection = await inspect(image, options);
  process.stdout.write(options.json === true ? jsonLine(planOf(inspection)) : planText(inspection));
  return 0;
}

async function inspect(image: string, options: OptionValues): Promise<ImageInspection> {
  const renderer = await createRenderer(options);
  try {
    return await untilSignal((signal) =>
      inspectImage(image, { ...pullOptionsOf(options, process.env), signal, onEvent: renderer.onEvent }),
    );
  } finally {
    renderer.end();
  }
}

const PLAN_COLUMNS: readonly Column[] = [
  { title: 'LAYER' },
  { title: 'FORMAT' },
  { title: 'SIZE', numeric: true },
  { title: 'FETCH', numeric: true },
  { title: 'REUSE', numeric: true },
  { title: 'RESUME', numeric: true },
  { title: 'REQUESTS', numeric: true },
];

function planText(inspection: ImageInspection): string {
  const row = (name: string, format: string, sizeBytes: number, figures: Figures) => [
    name,
    format,
    formatBytes(sizeBytes),
    formatBytes(figures.fetchBytes),
    formatBytes(figures.reuseBytes),
    formatBytes(figures.resumedBytes),
    String(figures.requests),
  ];
  const { layers } = inspection;
  const sizeBytes = layers.reduce((sum, layer) => sum + layer.sizeBytes, 0);
  const rows = layers.map((layer) => row(shortDigest(layer.digest), layer.format, layer.sizeBytes, layer));
  return formatTable(PLAN_COLUMNS, [...rows, row('all', '', sizeBytes, inspection)]);
}

type Figures = Pick<ImageInspection, 'fetchBytes' | 'reuseBytes' | 'resumedBytes' | 'requests'>;

const LAYER_COLUMNS: readonly Column[] = [
  { title: 'LAYER' },
  { title: 'FORMAT' },
  { title: 'SIZE', numeric: true },
  { title: 'TAR', numeric: true },
  { title: 'ENTRIES', numeric: true },
  { title: 'IN STORE', numeric: true },
  { title: 'BECAUSE OF' },
];

/** Some lines of a terminal; `--json` prints all. */
const MAX_CONFIG_TEXT_LENGTH = 500;

function inspectionText(inspection: ImageInspection): string {
  const { image, digest, indexDigest, mediaType, platform, platforms = [], layers } = inspection;
  const head = [
    ['image', image],
    ['digest', digest],
    ...(indexDigest === undefined ? [] : [['index', indexDigest]]),
    ['media type', mediaType],
    ['platform', platform],
    ...platforms.map((other, i) => [i === 0 ? 'in the index' : '', `${other.platform} ${other.digest}`]),
    ...configRows(inspection.config),
    ['layers', formatCount(layers.length, 'layer')],
  ];
  const heads = head.map(([name = '', value = '']) => `${name.padEnd(14)}${printable(value)}\n`).join('');
  return layers.length === 0 ? heads : `${heads}\n${formatTable(LAYER_COLUMNS, layers.map(layerRow))}`;
}

function layerRow(layer: LayerInspection): string[] {
  return [
    shortDigest(layer.digest),
    layer.format,
    formatBytes(layer.sizeBytes),
    layer.tarBytes === null ? '?' : formatBytes(layer.tarBytes),
    layer.entries === undefined ? '?' : String(layer.entries),
    layer.held ? 'all' : formatBytes(layer.reuseBytes + layer.resumedBytes),
    layer.reason,
  ];
}

/** Rows of an environment, labels or ports: some images have hundreds of labels. */
const MAX_LIST_ROWS = 50;

/**
 * What the config says about the image and its containers (OCI image-spec, config.md), a row each:
 * without what it leaves out, and long texts cut.
 */
export function configRows(config: unknown): [name: string, value: string][] {
  const { created, author, config: settings } = asObject(config);
  const { Entrypoint, Cmd, User, WorkingDir, Env, ExposedPorts, Volumes, StopSignal, Labels } =
    asObject(settings);
  return [
    ...row('created', textOf(created)),
    ...row('author', textOf(author)),
    ...row('entry point', commandLine(Entrypoint)),
    ...row('command', commandLine(Cmd)),
    ...row('user', textOf(User)),
    ...row('working dir', textOf(WorkingDir)),
    ...row('stop signal', textOf(StopSignal)),
    ...row('ports', Object.keys(asObject(ExposedPorts)).join(' ')),
    ...row('volumes', Object.keys(asObject(Volumes)).join(' ')),
    ...list('env', Array.isArray(Env) ? Env.map(String) : []),
    ...list(
      'labels',
      Object.entries(asObject(Labels)).map(([name, value]) => `${name}=${String(value)}`),
    ),
  ];
}

function row(name: string, text: string): [string, string][] {
  return text === '' ? [] : [[name, formatCut(text, MAX_CONFIG_TEXT_LENGTH)]];
}

function list(name: string, items: readonly string[]): [string, string][] {
  const left = items.length - MAX_LIST_ROWS;
  const shown = left > 0 ? [...items.slice(0, MAX_LIST_ROWS), `${left} more: --json has all`] : items;
  return shown.map((item, i) => [i === 0 ? name : '', formatCut(item, MAX_CONFIG_TEXT_LENGTH)]);
}

/** The words of a command; those that a shell would not take for one word in quotes. */
function commandLine(words: unknown): string {
  if (!Array.isArray(words)) return textOf(words);
  return words.map(String).map(quoteWord).join(' ');
}

function quoteWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function asObject(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};
}

function shortDigest(digest: string): string {
  return digest.slice('sha256:'.length, 'sha256:'.length + 12);
}
