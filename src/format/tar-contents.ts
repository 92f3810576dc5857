import { jsonText } from './json-cursor.js';
import { TAR_BLOCK_BYTES } from './tar-fields.js';
import { lineError, scanTarSplit } from './tar-split.js';
import type { TocEntry } from './toc.js';

/** A list of numbers that grows without making objects of them. */
export class Column {
  values = new Float64Array(1024);
  length = 0;

  push(value: number): void {
    if (this.length === this.values.length) {
      const grown = new Float64Array(this.length * 2);
      grown.set(this.values);
      this.values = grown;
    }
    this.values[this.length++] = value;
  }

  filled(): Float64Array {
    return this.values.subarray(0, this.length);
  }
}

/** The contents as the tar-split has them. */
export interface TarContents {
  readonly tarSplit: Buffer;
  readonly tarBytes: number;
  readonly count: number;
  readonly tarStart: Float64Array;
  readonly sizeBytes: Float64Array;
  readonly nameStart: Float64Array;
  readonly nameEnd: Float64Array;
  readonly nameForm: Float64Array;
}

/** Bits of `nameForm`. */
const NAME_ESCAPED = 1;
const NAME_BASE64 = 2;

/**
 * The files of a tar-split that have content, in tar order.
 * @throws PullError `metadata-malformed`
 */
export function collectContents(tarSplit: Buffer): TarContents {
  const tarStart = new Column();
  const sizeBytes = new Column();
  const nameStart = new Column();
  const nameEnd = new Column();
  const nameForm = new Column();
  let contentBytes = 0;
  const tarBytes = scanTarSplit(tarSplit, (line) => {
    if (line.kind !== 'file' || line.lengthBytes === 0) return;
    // So there are no more rows than the length of the tar-split allows, which has been booked.
    const headerBytes = line.tarStart - contentBytes;
    if (headerBytes < (tarStart.length + 1) * TAR_BLOCK_BYTES)
      throw lineError(line.number, 'no header before it');
    contentBytes += line.lengthBytes;
    tarStart.push(line.tarStart);
    sizeBytes.push(line.lengthBytes);
    nameStart.push(line.nameStart);
    nameEnd.push(line.nameEnd);
    nameForm.push((line.nameEscaped ? NAME_ESCAPED : 0) | (line.nameBlob ? NAME_BASE64 : 0));
  });
  return {
    tarSplit,
    tarBytes,
    count: tarStart.length,
    tarStart: tarStart.filled(),
    sizeBytes: sizeBytes.filled(),
    nameStart: nameStart.filled(),
    nameEnd: nameEnd.filled(),
    nameForm: nameForm.filled(),
  };
}

/**
 * Whether the content's name in the tar-split is the entry's. Where a name is not UTF-8 the tar-split has its bytes and
 * the TOC has U+FFFD for them, one a byte as Go decodes and one a sequence as we do: a run of them counts as one.
 */
export function sameName(tar: TarContents, row: number, toc: Buffer, entry: TocEntry): boolean {
  const { tarSplit } = tar;
  const start = tar.nameStart[row]!;
  const end = tar.nameEnd[row]!;
  const form = tar.nameForm[row]!;
  const base64 = (form & NAME_BASE64) !== 0;
  if (!base64 && tarSplit.compare(toc, entry.nameStart, entry.nameEnd, start, end) === 0) return true;
  const text = jsonText(tarSplit, start, end, (form & NAME_ESCAPED) !== 0);
  const name = base64 ? Buffer.from(text, 'base64').toString('utf8') : text;
  const single = (lossy: string) => lossy.replace(/\ufffd+/g, '\ufffd');
  return single(name) === single(jsonText(toc, entry.nameStart, entry.nameEnd, entry.nameEscaped));
}
