import { hash } from 'node:crypto';
import type { TarEntry } from '../../../src/format/tar-header.js';
import { tarHeader, tarPadding } from '../../../src/format/tar-writer.js';
import { tocType } from '../../../src/sandbox/chunked-metadata.js';
import { FrameQueue, type LayerWriter, TarMeter, TextSpool } from '../../../src/sandbox/layer-writer.js';
import { type TarHandler, TarReader } from '../../../src/sandbox/tar-reader.js';
import { StargzContent, type StargzCuts, StargzMembers } from './stargz-content.js';
import { type StargzChunk, type StargzCompression, stargzAnnotations, stargzTocText } from './stargz-tail.js';

/** The converter's defaults. */
const DEFAULT_CUTS: StargzCuts = { chunkBytes: 4 * 2 ** 20, minChunkBytes: 0 };
/** The landmark always begins a member. */
const ALWAYS = 0;

/** The first entry of a layer for which nothing is to be fetched ahead; its content is one byte. */
const LANDMARK = Buffer.from('.no.prefetch.landmark');
const LANDMARK_CONTENT = Buffer.from([0xf]);

const EMPTY_DIGEST = `sha256:${hash('sha256', '')}`;

/**
 * Writes tars as stargz-snapshotter's converter does: the landmark, then the entries without the end of the archive;
 * a member begins with each content or chunk and runs up to the next one, headers included; then the TOC and
 * the footer. Headers stay as they are, where the reference writer makes new ones.
 * The writer throws PullError `metadata-malformed` or `unsupported` for a tar the reference writer would refuse too.
 */
export function stargzWriter(compression: StargzCompression, cuts: Partial<StargzCuts>): LayerWriter {
  return async (tar, write, onProgress) => {
    const meter = new TarMeter();
    const queue = new FrameQueue(write, compression.compress);
    const state = new StargzState(queue, meter, { ...DEFAULT_CUTS, ...cuts });
    const reader = new TarReader(state);
    reader.push(landmark());
    for (const piece of tar) {
      reader.push(piece);
      onProgress(piece.length);
      await queue.room();
    }
    reader.end();
    state.end();
    await queue.drained();
    const toc = state.toToc();
    const own = await compression.end(toc, queue.offsetBytes, write, meter);
    const annotations = { ...stargzAnnotations(toc, meter.tarBytes), ...own };
    return { diffId: meter.diffId(), tarBytes: meter.tarBytes, annotations };
  };
}

function landmark(): Buffer {
  const sizeBytes = LANDMARK_CONTENT.length;
  const ids = { mode: 0, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanos: 0 };
  const header = tarHeader({ type: '0', name: LANDMARK, sizeBytes, ...ids });
  return Buffer.concat([header, LANDMARK_CONTENT, tarPadding(sizeBytes)]);
}

/** Turns the events of the tar reader into members and TOC entries. */
class StargzState implements TarHandler {
  readonly #members: StargzMembers;
  readonly #meter: TarMeter;
  readonly #cuts: StargzCuts;
  readonly #toc = new TextSpool();
  #lead = '{\n\t"version": 1,\n\t"entries": [';
  #entry: TarEntry | undefined;
  #content: StargzContent | undefined;
  /** Of the last content. */
  #padding = tarPadding(0);

  constructor(queue: FrameQueue, meter: TarMeter, cuts: StargzCuts) {
    this.#members = new StargzMembers(queue);
    this.#meter = meter;
    this.#cuts = cuts;
  }

  entry(entry: TarEntry, contentBytes: number, raw: Buffer): void {
    const type = tocType(entry);
    this.#add(raw);
    this.#padding = tarPadding(contentBytes);
    if (contentBytes === 0) {
      const digest = type === 'reg' ? EMPTY_DIGEST : undefined;
      this.#members.after(() => this.#tocEntry(entry, digest, []));
      return;
    }
    const minChunkBytes = entry.name.equals(LANDMARK) ? ALWAYS : this.#cuts.minChunkBytes;
    this.#entry = entry;
    this.#content = new StargzContent(this.#members, contentBytes, { ...this.#cuts, minChunkBytes });
  }

  content(bytes: Buffer): void {
    this.#meter.add(bytes);
    const entry = this.#entry!;
    const content = this.#content!;
    const isWhole = content.push(bytes);
    if (isWhole) this.#members.after(() => this.#tocEntry(entry, content.digest, content.chunks));
  }

  /** The end of the archive is left out: a TOC may follow. */
  trailer(): void {}

  /** Ends the last member, with the padding that the trailer began with. */
  end(): void {
    this.#add(this.#padding);
    this.#members.cut();
  }

  /** The whole TOC, once all members are written. */
  toToc(): Buffer {
    this.#toc.add('\n\t]\n}');
    return this.#toc.toBuffer();
  }

  #add(raw: Buffer): void {
    this.#meter.add(raw);
    this.#members.add(raw);
  }

  #tocEntry(entry: TarEntry, digest: string | undefined, chunks: readonly StargzChunk[]): void {
    this.#toc.add(this.#lead + stargzTocText(entry, digest, chunks, this.#cuts.chunkBytes));
    this.#lead = ',';
  }
}
