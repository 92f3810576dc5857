import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { gunzipSync, inflateRawSync } from 'node:zlib';
import { decompress } from '@mongodb-js/zstd';
import { FrameWalker } from '../../src/format/zstd-frame.js';
import { DIALECT_LAYOUT } from './fixture-layout.js';
import { type DescriptorJson, readBlob, readConfig, readManifest } from './layout.js';

/** A layer as a registry stores it. */
export interface StoredLayer {
  readonly name: string;
  readonly blob: Buffer;
  readonly mediaType: string;
  readonly annotations: Readonly<Record<string, string>>;
  readonly diffId: string;
}

/** A part of a blob that can be decoded by itself. */
interface Member {
  readonly start: number;
  readonly end: number;
  readonly raw: Buffer;
}

/** A TOC entry as older writers and stargz-snapshotter state it. */
interface Entry {
  readonly type: string;
  readonly name: string;
  readonly size?: number;
  readonly digest?: string;
  readonly offset?: number;
  readonly endOffset?: number;
  readonly innerOffset?: number;
  readonly chunkSize?: number;
  readonly chunkOffset?: number;
  readonly chunkDigest?: string;
}

/** The decoded contents of a layer. */
export interface ReadLayer {
  readonly tar: Buffer;
  readonly members: readonly Member[];
  readonly toc: string;
  readonly entries: readonly Entry[];
}

const OLD_PREFIX = 'io.containers.zstd-chunked.';
const TOC_DIGEST = 'containerd.io/snapshot/stargz/toc.digest';
const RAW_BYTES = 'io.containers.estargz.uncompressed-size';
const ESTARGZ_FOOTER_BYTES = 51;

export function sha256(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** The layers of an image in a layout. */
export function storedLayers(layout: string, ref: string): StoredLayer[] {
  const manifest = readManifest(layout, ref);
  const diffIds = readConfig(layout, manifest).rootfs.diff_ids;
  return manifest.layers.map(({ digest, mediaType, annotations = {} }: DescriptorJson, row) => ({
    name: `layer ${row} of ${ref}`,
    blob: readBlob(layout, digest),
    mediaType,
    annotations,
    diffId: diffIds[row]!,
  }));
}

/** The layers of the images that other programs wrote. */
export function dialectLayers(ref: 'old' | 'nerdctl' | 'estargz'): StoredLayer[] {
  return storedLayers(DIALECT_LAYOUT, ref);
}

/** The gzip members of a blob. */
export function gzipMembers(blob: Buffer): Member[] {
  const members: Member[] = [];
  for (let start = 0; start < blob.length; ) {
    assert.equal(blob.toString('hex', start, start + 3), '1f8b08', `no member begins at ${start}`);
    const hasExtra = blob[start + 3] === 4;
    const body = start + 10 + (hasExtra ? 2 + blob.readUInt16LE(start + 10) : 0);
    const { engine } = inflateRawSync(blob.subarray(body), { info: true }) as unknown as {
      engine: { bytesWritten: number };
    };
    const end = body + engine.bytesWritten + 8;
    members.push({ start, end, raw: gunzipSync(blob.subarray(start, end)) });
    start = end;
  }
  return members;
}

/** The zstd frames of a blob; skippable ones decode to nothing. */
export async function zstdMembers(blob: Buffer): Promise<Member[]> {
  const walker = new FrameWalker();
  walker.advance(blob, blob.length);
  assert.equal(walker.completeBytes, blob.length);
  const members: Member[] = [];
  for (let frame = 0, start = 0; frame < walker.frameCount; frame += 1) {
    const end = walker.frameEnd(frame);
    members.push({ start, end, raw: await decompress(blob.subarray(start, end)) });
    start = end;
  }
  return members;
}

/** Decodes a layer of stargz-snapshotter and asserts that everything it states is true. */
export async function readStargzLayer(layer: StoredLayer): Promise<ReadLayer> {
  const { blob, annotations, mediaType } = layer;
  const isGzip = mediaType.endsWith('+gzip');
  const members = isGzip ? gzipMembers(blob) : await zstdMembers(blob);
  const tar = Buffer.concat(members.map(({ raw }) => raw));
  assert.equal(sha256(tar), layer.diffId, layer.name);
  assert.equal(Number(annotations[RAW_BYTES]), tar.length);
  const { toc, dataEnd } = isGzip ? estargzToc(layer, members) : await oldToc(layer);
  assert.equal(annotations[TOC_DIGEST], sha256(toc));
  assert.equal(Object.keys(annotations).length, isGzip ? 2 : 4);
  const { version, entries } = JSON.parse(toc.toString()) as { version: number; entries: Entry[] };
  assert.equal(version, 1);
  assert.equal(entries[0]!.name, '.no.prefetch.landmark');
  const result = { tar, members, toc: toc.toString(), entries };
  assertStargzContents(result, dataEnd);
  return result;
}

/** Asserts that each content and chunk is in the member that its entry names. */
function assertStargzContents({ tar, members, entries }: ReadLayer, dataEnd: number): void {
  const starts = new Map(members.map(({ start }, row) => [start, row]));
  const tarStarts = tarStartsOf(members);
  const chunks = entries.filter(({ offset }) => offset !== undefined);
  let parts: Buffer[] = [];
  let last: Entry | undefined;
  for (const [row, entry] of chunks.entries()) {
    const first = starts.get(entry.offset!);
    assert.ok(first !== undefined && entry.offset! < dataEnd, `${entry.name} begins at a member`);
    if (entry.type === 'reg') last = entry;
    const { name, size } = last!;
    assert.equal(entry.name, name);
    const rest = size! - (entry.chunkOffset ?? 0);
    const from = tarStarts[first]! + (entry.innerOffset ?? 0);
    const bytes = tar.subarray(from, from + (entry.chunkSize ?? rest));
    assert.equal(sha256(bytes), entry.chunkDigest, `a chunk of ${name}`);
    const next = chunks.slice(row + 1).find(({ offset }) => offset !== entry.offset)?.offset ?? dataEnd;
    const memberEnd = members.findLastIndex(({ end }) => end <= next);
    assert.ok(tarStarts[memberEnd + 1]! >= from + bytes.length, `${name} ends before the next member`);
    parts.push(bytes);
    if (chunks[row + 1]?.type === 'chunk') continue;
    assert.equal(sha256(Buffer.concat(parts)), last!.digest, name);
    parts = [];
  }
  for (const { type, size, offset, digest } of entries) {
    if (type === 'reg' && size === undefined) {
      assert.equal(offset, undefined);
      assert.equal(digest, sha256(Buffer.alloc(0)));
    }
  }
}

/** Where in the tar each member begins, and where the last one ends. */
function tarStartsOf(members: readonly Member[]): number[] {
  const starts = [0];
  for (const { raw } of members) starts.push(starts.at(-1)! + raw.length);
  return starts;
}

/** Footer and TOC of an eStargz layer (stargz-snapshotter, docs/estargz.md). */
function estargzToc({ blob }: StoredLayer, members: readonly Member[]): { toc: Buffer; dataEnd: number } {
  const footer = blob.subarray(-ESTARGZ_FOOTER_BYTES);
  const field = footer.subarray(16, 38);
  assert.match(field.toString('latin1'), /^[0-9a-f]{16}STARGZ$/);
  const head = '1f8b080400000000' + '00ff' + '1a00' + '53471600';
  assert.equal(footer.toString('hex'), `${head}${field.toString('hex')}010000ffff0000000000000000`);
  const dataEnd = Number.parseInt(field.toString('latin1', 0, 16), 16);
  const [last, empty] = members.slice(-2);
  assert.equal(last!.start, dataEnd);
  assert.deepEqual([empty!.start, empty!.raw.length], [blob.length - ESTARGZ_FOOTER_BYTES, 0]);
  const { raw } = last!;
  assert.equal(raw.toString('latin1', 0, 18), 'stargz.index.json\0');
  const tocBytes = Number.parseInt(raw.toString('latin1', 124, 135), 8);
  assert.ok(raw.subarray(512 + tocBytes).every((byte) => byte === 0));
  assert.equal(raw.length, 512 + Math.ceil(tocBytes / 512) * 512 + 1024);
  return { toc: raw.subarray(512, 512 + tocBytes), dataEnd };
}

/** The TOC that the old annotations and the footer of 40 bytes lead to. */
async function oldToc({ blob, annotations }: StoredLayer): Promise<{ toc: Buffer; dataEnd: number }> {
  const position = annotations[`${OLD_PREFIX}manifest-position`]!;
  const footer = blob.subarray(-40);
  assert.equal(footer.toString('latin1', 32), 'GnUlInUx');
  const numbers = Array.from({ length: 4 }, (_, row) => footer.readBigUInt64LE(row * 8));
  assert.equal(numbers.join(':'), position);
  const [start = 0, length = 0, uncompressedBytes] = position.split(':').map(Number);
  const bytes = blob.subarray(start, start + length);
  assert.equal(sha256(bytes), annotations[`${OLD_PREFIX}manifest-checksum`]);
  for (const [from, count] of [
    [start, length],
    [blob.length - 40, 40],
  ] as const) {
    assert.equal(blob.toString('hex', from - 8, from - 4), '502a4d18');
    assert.equal(blob.readUInt32LE(from - 4), count);
  }
  assert.equal(start + length + 8 + 40, blob.length);
  const toc = await decompress(bytes);
  assert.equal(toc.length, uncompressedBytes);
  return { toc, dataEnd: start - 8 };
}

/** Decodes a layer of containers/storage 1.31 to 1.43 and asserts that everything it states is true. */
export async function readOldLayer(layer: StoredLayer): Promise<ReadLayer> {
  assert.deepEqual(Object.keys(layer.annotations).sort(), [
    `${OLD_PREFIX}manifest-checksum`,
    `${OLD_PREFIX}manifest-position`,
  ]);
  const members = await zstdMembers(layer.blob);
  const tar = Buffer.concat(members.map(({ raw }) => raw));
  const { toc } = await oldToc(layer);
  const { tarSplitDigest, entries } = JSON.parse(toc.toString());
  assert.equal(tarSplitDigest, undefined);
  // Go writes null for a list without entries.
  const result = { tar, members, toc: toc.toString(), entries: entries ?? [] };
  assertOldContents(result);
  return result;
}

/** Every content begins and ends with a frame, and so do its chunks. */
function assertOldContents({ members, entries }: ReadLayer): void {
  const between = (start: number, end: number) => {
    const first = members.findIndex((member) => member.start === start);
    const last = members.findIndex((member) => member.end === end);
    assert.ok(first >= 0 && last >= first, `frames begin at ${start} and end at ${end}`);
    return Buffer.concat(members.slice(first, last + 1).map(({ raw }) => raw));
  };
  let contentEnd = 0;
  for (const [row, entry] of entries.entries()) {
    if (entry.digest !== undefined) {
      assert.ok(entry.offset! > contentEnd, 'headers have frames of their own');
      contentEnd = entry.endOffset!;
      const content = between(entry.offset!, contentEnd);
      assert.equal(content.length, entry.size);
      assert.equal(sha256(content), entry.digest);
    }
    if (entry.chunkDigest === undefined) continue;
    const next = entries[row + 1];
    const chunk = between(entry.offset!, next?.type === 'chunk' ? next.offset! : contentEnd);
    assert.equal(chunk.length, entry.chunkSize);
    assert.equal(sha256(chunk), entry.chunkDigest);
  }
}
