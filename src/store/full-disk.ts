import { PullError } from '../format/error.js';

let makeRoom: () => boolean = () => false;

/** From now on a write of this thread that finds the disk full calls `make`, which returns whether another try is worth it. */
export function onFullDisk(make: () => boolean): void {
  makeRoom = make;
}

/** Does a write, and does it once more when the disk was full and room could be made. @throws what `write` throws */
export function withRoom<T>(write: () => T): T {
  try {
    return write();
  } catch (error) {
    if (!isFull(error) || !makeRoom()) throw error;
    return write();
  }
}

/** The same for a write that does not block, with room that `from` can make. */
export async function withRoomFrom<T>(
  from: { makeRoom?(): Promise<void> } | undefined,
  write: () => Promise<T>,
): Promise<T> {
  try {
    return await write();
  } catch (error) {
    if (!isFull(error) || from?.makeRoom === undefined) throw error;
    await from.makeRoom();
    return write();
  }
}

function isFull(error: unknown): boolean {
  return error instanceof PullError && error.code === 'store-full';
}
