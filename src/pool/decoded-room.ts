/** What the layers of a pull may decode to beyond what their lengths allow: how many bytes are left, in memory that all threads share. */
export type DecodedRoom = BigInt64Array<SharedArrayBuffer>;

/** Room for so many bytes. */
export function createDecodedRoom(bytes: number): DecodedRoom {
  const room = new BigInt64Array(new SharedArrayBuffer(BigInt64Array.BYTES_PER_ELEMENT));
  room[0] = BigInt(bytes);
  return room;
}

/** Bytes that are left. */
export function roomLeft(room: DecodedRoom): number {
  return Number(Atomics.load(room, 0));
}

/** Takes bytes, unless fewer are left. Returns whether it did. */
export function takeRoom(room: DecodedRoom, bytes: number): boolean {
  for (;;) {
    const left = Atomics.load(room, 0);
    if (left < bytes) return false;
    if (Atomics.compareExchange(room, 0, left, left - BigInt(bytes)) === left) return true;
  }
}
