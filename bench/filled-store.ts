import { randomBytes } from 'node:crypto';
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';

/** docs/store-format.md, "Index records". */
const RECORD_BYTES = 80;
const CONTENT_TYPE = 2;
const CONTENT_BYTES = 50_000;

/** Makes a store of sealed packs in which `contents` contents are indexed, which nobody wants; the packs are holes. */
export function writeFilledStore(store: string, packs: number, contents: number): void {
  const directory = join(store, 'v1', 'packs');
  mkdirSync(directory, { recursive: true });
  const each = Math.floor(contents / packs);
  for (let pack = 0; pack < packs; pack += 1) {
    const id = randomBytes(16).toString('hex');
    const index = Buffer.alloc(each * RECORD_BYTES);
    for (let row = 0; row < each; row += 1) {
      const record = index.subarray(row * RECORD_BYTES, (row + 1) * RECORD_BYTES);
      record[4] = CONTENT_TYPE;
      randomBytes(32).copy(record, 8);
      record.writeBigUInt64LE(BigInt(row * CONTENT_BYTES), 40);
      record.writeBigUInt64LE(BigInt(CONTENT_BYTES), 48);
      record.writeUInt32LE(crc32(record.subarray(4)), 0);
    }
    writeFileSync(join(directory, `${id}.pack`), '');
    truncateSync(join(directory, `${id}.pack`), each * CONTENT_BYTES);
    writeFileSync(join(directory, `${id}.idx`), index);
  }
}
