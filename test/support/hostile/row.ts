import { createHash } from 'node:crypto';
import type { FaultRule } from '../../../src/sandbox/faults.js';
import { formatWriter, type SampleFormat } from '../layers/sample-image.js';
import { addBlob, type DescriptorJson, noise, tarOf } from '../layout.js';

/** An image with one lie in it, all digests around the lie being right; or answers with one. */
export interface ImageRow {
  readonly name: string;
  /** The exit code that a pull must give. */
  readonly exit: number;
  /** Writes the image under this tag. Returns what the registry answers otherwise than the layout says. */
  readonly write: (layout: string, ref: string) => Promise<readonly FaultRule[]> | readonly FaultRule[];
  /** What stands behind the tag in the reference. */
  readonly suffix?: string;
}

/** A layer with a lie that does no harm: it is pulled all the same. Many of them are in one image, which saves time. */
export interface LayerRow {
  readonly name: string;
  /** Whether a warning names the layer. */
  readonly warns: boolean;
  readonly write: (layout: string, tar: Buffer) => Promise<HostileLayer>;
}

export interface HostileLayer {
  readonly layer: DescriptorJson;
  readonly diffId: string;
  readonly faults?: readonly FaultRule[];
}

/** Layers that make a file system, or none. */
export interface TreeRow {
  readonly name: string;
  /** The exit code that an export must give. */
  readonly exit: number;
  readonly tars: readonly Buffer[];
}

/** A tar that no other row has, neither as a whole nor file by file. */
export function tarFor(name: string): Buffer {
  const seed = sha256(Buffer.from(name)).readUInt32LE();
  return tarOf({
    one: noise(seed, 30_000),
    two: noise(seed + 1, 30_000),
    'and/three': noise(seed + 2, 9000),
  });
}

export function diffIdOf(tar: Buffer): string {
  return `sha256:${sha256(tar).toString('hex')}`;
}

function sha256(bytes: Buffer): Buffer {
  return createHash('sha256').update(bytes).digest();
}

/** A layer of the tar as the sample writer makes it. */
export async function sampleLayer(
  layout: string,
  tar: Buffer,
  format: SampleFormat,
): Promise<HostileLayer & { readonly blob: Buffer }> {
  const pieces: Buffer[] = [];
  const { mediaType, write } = formatWriter(format, {});
  const keep = (bytes: Buffer) => void pieces.push(Buffer.from(bytes));
  const { annotations, diffId } = await write([tar], keep, () => {});
  const blob = Buffer.concat(pieces);
  const layer = {
    mediaType,
    digest: addBlob(layout, blob),
    size: blob.length,
    annotations: { ...annotations },
  };
  return { layer, diffId, blob };
}

/** Answers to requests whose path matches, whatever the layout has. */
export function answer(
  path: string,
  status: number,
  headers: Readonly<Record<string, string>> = {},
  body = '',
): FaultRule {
  return { match: { path }, action: { status, headers, body } };
}

/** Paths that tars with absolute names would create. */
export const PLANTED = '/zpull-planted-by-a-test';
