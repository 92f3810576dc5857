/**
 * CRC-64 with the ISO 3309 polynomial, as tar-split writes it for every file (Go's `hash/crc64`, table ISO).
 *
 * The polynomial is x^64 + x^4 + x^3 + x + 1: so few terms that eight bytes are taken at once by shifts alone,
 * where a sliced table would need eight look-ups in 16 KiB. Bits are reflected: bit 63 stands for x^0.
 */

const HIGH = 0xd8000000;

/** What the low four bits give when they leave the word at x^64 and come back, for the terms x, x^3 and x^4. */
const CARRY = Uint32Array.from({ length: 16 }, (_, nibble) => carryOf(nibble));

function carryOf(nibble: number): number {
  let sum = 0;
  for (const shift of [1, 3, 4]) {
    let high = 0;
    for (let step = 0; step < shift; step += 1) {
      high = (high >>> 1) ^ ((nibble >>> step) & 1 ? HIGH : 0);
    }
    sum ^= high;
  }
  return sum;
}

/** A running checksum. */
export class Crc64 {
  #high = -1;
  #low = -1;

  /** Takes the next bytes; pieces may be cut anywhere. */
  update(bytes: Buffer): void {
    let high = this.#high;
    let low = this.#low;
    const whole = bytes.length - (bytes.length % 8);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let at = 0; at < whole; at += 8) {
      low ^= view.getInt32(at, true);
      high ^= view.getInt32(at + 4, true);
      const carry = CARRY[low & 15]!;
      low ^= ((low >>> 1) | (high << 31)) ^ ((low >>> 3) | (high << 29)) ^ ((low >>> 4) | (high << 28));
      high ^= (high >>> 1) ^ (high >>> 3) ^ (high >>> 4) ^ carry;
    }
    for (let at = whole; at < bytes.length; at += 1) {
      low ^= bytes[at]!;
      for (let bit = 0; bit < 8; bit += 1) {
        const out = low & 1;
        low = (low >>> 1) | (high << 31);
        high = (high >>> 1) ^ (out === 1 ? HIGH : 0);
      }
    }
    this.#high = high;
    this.#low = low;
  }

  /** The checksum of everything taken so far: 8 bytes, big-endian. */
  digest(): Buffer {
    const bytes = Buffer.alloc(8);
    bytes.writeInt32BE(~this.#high, 0);
    bytes.writeInt32BE(~this.#low, 4);
    return bytes;
  }
}
