import { createPrng, type Prng } from './prng.js';
import type { SampleContent } from './sample-content.js';

/** What became of one file in version 2. */
export interface Change {
  readonly content: SampleContent;
  readonly isGone: boolean;
  /** A new file next to it. */
  readonly added: SampleContent | undefined;
}

/** An update as distributions ship it: few files, but rather the large ones. */
const CHANGED_SHARE = 0.03;
const CHANGED_BYTES_SHARE = 0.1;
const GONE_SHARE = 0.005;

/** The stream of random numbers that belongs to version 2. */
const STREAM = 50;

/** What version 2 does to each file: 3 % changed (about a tenth of the bytes), 0.5 % new, 0.5 % gone. */
export function planChanges(contents: readonly SampleContent[], seed: number): Change[] {
  const prng = createPrng(seed, STREAM);
  const order = shuffled(contents.length, prng);
  const few = Math.ceil(contents.length * GONE_SHARE);
  const gone = new Set(order.splice(0, few));
  const neighbours = new Set(order.splice(0, few));
  const changed = pickChanged(contents, order);
  return contents.map((content, index) => {
    const random = prng.next();
    return {
      content: changed.has(index) ? { ...content, seed: random } : content,
      isGone: gone.has(index),
      added: neighbours.has(index) ? { ...content, seed: random } : undefined,
    };
  });
}

/** Half of them as they come; the others of the size that brings the bytes to their share. */
function pickChanged(contents: readonly SampleContent[], order: readonly number[]): Set<number> {
  const quota = Math.round(contents.length * CHANGED_SHARE);
  const half = Math.ceil(quota / 2);
  const sizeOf = (index: number) => contents[index]!.sizeBytes;
  const candidates = order.filter((index) => sizeOf(index) > 0);
  const picked = new Set(candidates.slice(0, half));
  let bytesLeft = CHANGED_BYTES_SHARE * contents.reduce((sum, content) => sum + content.sizeBytes, 0);
  for (const index of picked) bytesLeft -= sizeOf(index);
  for (const index of candidates.slice(half)) {
    if (picked.size >= quota) break;
    const wanted = bytesLeft / (quota - picked.size);
    if (sizeOf(index) < wanted / 2 || sizeOf(index) > wanted * 2) continue;
    picked.add(index);
    bytesLeft -= sizeOf(index);
  }
  return picked;
}

function shuffled(count: number, prng: Prng): number[] {
  const order = Array.from({ length: count }, (_, index) => index);
  for (let last = count - 1; last > 0; last -= 1) {
    const other = prng.below(last + 1);
    [order[last], order[other]] = [order[other]!, order[last]!];
  }
  return order;
}
