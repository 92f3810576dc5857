import { isUtf8 } from 'node:buffer';
import type { TarEntry } from '../format/tar-header.js';
import { goJson } from './go-json.js';
import { TextSpool } from './text-spool.js';

/** The lines of a tar-split (vbatts/tar-split, tar/storage): raw bytes, and one line an entry. */
export class TarSplitText {
  readonly #spool = new TextSpool();
  #position = 0;

  /** Tar bytes that are no content. */
  raw(bytes: Buffer): void {
    this.#spool.add(`{"type":2,"payload":"${bytes.toString('base64')}","position":${this.#position++}}\n`);
  }

  /** A tar entry; `crc` is the checksum of its content, if it has a size. */
  entry(entry: TarEntry, crc: Buffer | undefined): void {
    const named = isUtf8(entry.name)
      ? { name: entry.name.toString() || undefined }
      : { name_raw: entry.name.toString('base64') };
    const size = entry.sizeBytes || undefined;
    const payload = crc === undefined ? null : crc.toString('base64');
    const line = { type: 1, ...named, size, payload, position: this.#position++ };
    this.#spool.add(`${goJson(line)}\n`);
  }

  toBuffer(): Buffer {
    return this.#spool.toBuffer();
  }
}
