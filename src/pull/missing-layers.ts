import { setTimeout as sleep } from 'node:timers/promises';
import type { Digest } from '../format/digest.js';
import type { LayerLocks } from '../store/layer-locks.js';
import type { LayerFigures, WantedLayer } from './layer.js';
import type { PulledLayers } from './pull-layers.js';
import type { Stop } from './stop.js';

/** A layer that is gone again after so many pulls of it is taken from us by something that will not stop. */
const MOST_PULLS = 2;

/** How often a waiting pull or copy looks: some small files are read each time. */
export const LOOK_MS = 200;

interface MissingLayers {
  readonly locks: LayerLocks;
  readonly stop: Stop;
  /** The layers that the store does not have now. */
  readonly missing: () => Promise<readonly WantedLayer[]>;
  readonly pull: (layers: readonly WantedLayer[]) => Promise<PulledLayers>;
  /** Called when nothing but layers of other processes is left. */
  readonly onWait: (layers: number) => void;
}

/** What the layers that were pulled here cost, by DiffID. */
interface PulledHere {
  readonly figures: Map<Digest, LayerFigures>;
  readonly provenAfterMs: number;
}

/**
 * Pulls the layers that the store does not have. Those that another process is pulling come last: they are there by then, or
 * are left to us. A layer that goes while others are pulled (by a prune that had begun before) is pulled again, once.
 * @throws PullError the reason of a stop, else what `pull` throws and as `storageError`
 */
export async function pullMissing({
  locks,
  stop,
  missing,
  pull,
  onWait,
}: MissingLayers): Promise<PulledHere> {
  const figures = new Map<Digest, LayerFigures>();
  const pulls = new Map<Digest, number>();
  let provenAfterMs = 0;
  for (;;) {
    const wanted = (await missing()).filter(({ diffId }) => (pulls.get(diffId) ?? 0) < MOST_PULLS);
    if (wanted.length === 0) return { figures, provenAfterMs };
    const free = new Set(wanted.map(({ diffId }) => diffId).filter((diffId) => locks.tryLock(diffId)));
    // Whoever had a lock may have published the layer since we looked.
    const own = free.size === 0 ? [] : (await missing()).filter(({ diffId }) => free.has(diffId));
    if (own.length > 0) {
      const pulled = await pull(own);
      for (const [i, { diffId }] of own.entries()) {
        figures.set(diffId, pulled.figures[i]!);
        pulls.set(diffId, (pulls.get(diffId) ?? 0) + 1);
      }
      provenAfterMs += pulled.provenAfterMs;
    }
    locks.releaseAll();
    if (free.size > 0) continue;
    onWait(wanted.length);
    // Nobody asks a server meanwhile: karma's clock stands still.
    while (wanted.every(({ diffId }) => locks.isLocked(diffId))) await stop.guard(sleep(LOOK_MS));
  }
}
