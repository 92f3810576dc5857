import { type ImageInspection, inspectImage, type LayerInspection } from '../../api/pull.js';
import {
  type Column,
  formatBytes,
  formatCount,
  formatCut,
  formatTable,
  jsonLine,
  printable,
} from '../format-text.js';
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

function planOf({ config: _config, platforms: _platforms, ...plan }: ImageInspection): object {
  return { ...plan, layers: plan.layers.map(({ reason: _, entries: _entries, ...layer }) => layer) };
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
    ['config', formatCut(configText(inspection.config), MAX_CONFIG_TEXT_LENGTH)],
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

/** When the image was created and what it runs. */
function configText(config: unknown): string {
  const { created, config: settings } = asObject(config);
  const { Entrypoint: entrypoint, Cmd: command } = asObject(settings);
  const words = [entrypoint, command].flatMap((list) => (Array.isArray(list) ? list.map(String) : []));
  const parts = [
    typeof created === 'string' ? `created ${created}` : '',
    words.length > 0 ? `runs ${words.join(' ')}` : '',
  ];
  return parts.filter((part) => part !== '').join(', ') || 'no time of creation, no command';
}

function asObject(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function shortDigest(digest: string): string {
  return digest.slice('sha256:'.length, 'sha256:'.length + 12);
}
