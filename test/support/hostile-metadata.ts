import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { compress } from '@mongodb-js/zstd';
import { CURRENT_DIALECT, compressText, OLD_MAGIC, writeTail } from '../../src/sandbox/chunked-metadata.js';
import { TarMeter } from '../../src/sandbox/layer-writer.js';
import { ESTARGZ } from './layers/stargz-tail.js';
import { addBlob, type DescriptorJson, noise, tarOf } from './layout.js';

const ZSTD = 'application/vnd.oci.image.layer.v1.tar+zstd';
const GZIP = 'application/vnd.oci.image.layer.v1.tar+gzip';

/** Blobs below 4 MiB are not asked for a footer. */
const DATA = noise(1, 4.2 * 2 ** 20);

/** A layer and its DiffID. */
export interface HostileLayer {
  readonly descriptor: DescriptorJson;
  readonly diffId: string;
}

export interface Texts {
  readonly toc: Buffer;
  readonly tarSplit?: Buffer;
}

/** `bytes` spaces with the text before and behind them. */
export function spaces(bytes: number, before = '', behind = ''): Buffer {
  const text = Buffer.alloc(bytes, ' ');
  text.write(before);
  text.write(behind, bytes - behind.length);
  return text;
}

/** A TOC of this size without entries. */
export function emptyToc(bytes: number): Buffer {
  return spaces(bytes, '{"version":1,"entries":[', ']}');
}

/** A TOC of as many bytes, and noise in every 4 KiB of it: spaces compress better than metadata can. */
export function salted(bytes: number, seed: number): Buffer {
  const toc = emptyToc(bytes);
  eachSalt(toc, seed, (salt, at) => toc.write(`{"x":"${salt}"},`, at));
  toc.write('{}', toc.length - 100);
  return toc;
}

/** The same as a tar-split without files. */
export function saltedSplit(bytes: number, seed: number): Buffer {
  const tarSplit = spaces(bytes);
  eachSalt(tarSplit, seed, (salt, at) => tarSplit.write(`{"type":2,"payload":"${salt}"}`, at));
  return tarSplit;
}

function eachSalt(text: Buffer, seed: number, write: (salt: string, at: number) => void): void {
  const salt = noise(seed, 2 ** 20).toString('hex');
  for (let at = 4096, i = 0; at + 8192 < text.length; at += 4096, i = (i + 32) % (salt.length - 32))
    write(salt.slice(i, i + 32), at);
}

const squeezed = new Map<Buffer, ReturnType<typeof compressText>>();

/** The same text is compressed once: it takes a second for 500 MB. */
function compressOnce(text: Buffer): ReturnType<typeof compressText> {
  const known = squeezed.get(text) ?? compressText(text);
  squeezed.set(text, known);
  return known;
}

/** A good layer whose footer, and annotations if asked for, lead to these texts. */
export async function zstdLayer(
  layout: string,
  seed: number,
  { toc, tarSplit }: Texts,
  annotated: boolean,
): Promise<HostileLayer> {
  const tar = tarOf({ ...(annotated ? {} : { data: DATA }), seed: Buffer.from(String(seed)) });
  const data = await compress(tar, 1);
  const blob: Buffer[] = [data];
  const tail = await compressOnce(toc);
  const split = tarSplit && (await compressOnce(tarSplit));
  const { magic, prefix } = CURRENT_DIALECT;
  const write = (bytes: Buffer) => blob.push(bytes);
  const [tocAt, splitAt] = writeTail(
    write,
    data.length,
    split === undefined ? OLD_MAGIC : magic,
    tail,
    split,
  );
  const annotations = {
    [`${prefix}manifest-checksum`]: tail.digest,
    [`${prefix}manifest-position`]: tocAt,
    ...(split && {
      [`${prefix}tarsplit-position`]: splitAt,
      [`${prefix}tarsplit-checksum`]: split.digest,
    }),
  };
  const bytes = Buffer.concat(blob);
  const descriptor = { mediaType: ZSTD, digest: addBlob(layout, bytes), size: bytes.length };
  return { descriptor: annotated ? { ...descriptor, annotations } : descriptor, diffId: diffIdOf([tar]) };
}

/** The same as eStargz. */
export async function stargzLayer(layout: string, seed: number, toc: Buffer): Promise<HostileLayer> {
  const tar = tarOf({ seed: Buffer.from(String(seed)) }).subarray(0, -1024);
  const blob = [await promisify<Buffer, Buffer>(gzip)(tar)];
  const meter = new TarMeter();
  meter.add(tar);
  await ESTARGZ.end(toc, blob[0]!.length, (bytes) => blob.push(bytes), meter);
  const bytes = Buffer.concat(blob);
  const annotations = { 'containerd.io/snapshot/stargz/toc.digest': diffIdOf([toc]) };
  const descriptor = { mediaType: GZIP, digest: addBlob(layout, bytes), size: bytes.length, annotations };
  return { descriptor, diffId: meter.diffId() };
}

function diffIdOf(parts: readonly Buffer[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return `sha256:${hash.digest('hex')}`;
}
