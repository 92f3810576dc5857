import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { PullError } from '../../src/api/errors.js';
import type { EventOrigin, RunOptions } from '../../src/api/pull.js';
import { type PullEvent, type PullResult, pullImage } from '../../src/api/pull.js';
import { parseDigest } from '../../src/format/digest.js';
import type { SandboxRegistry } from '../../src/sandbox/registry-server.js';
import type { RequestRecord } from '../../src/sandbox/serve-request.js';
import { listImageRecords } from '../../src/store/image-record.js';
import { listLayerFiles, readLayerRecord } from '../../src/store/layer-record.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { storePaths } from '../../src/store/paths.js';

/** A pull that succeeded, with its events. */
export interface Pulled {
  readonly result: PullResult;
  readonly events: readonly PullEvent[];
}

/** Pulls and records the events. */
export async function pull(image: string, options: RunOptions): Promise<Pulled> {
  const events: PullEvent[] = [];
  const onEvent = (event: PullEvent & EventOrigin) => {
    events.push(event);
    options.onEvent?.(event);
  };
  return { result: await pullImage(image, { ...options, onEvent }), events };
}

/** Returns the error of a pull; fails if it succeeds or throws anything but a PullError. */
export async function failureOf(pulling: Promise<unknown>): Promise<PullError> {
  const outcome = await pulling.then(
    () => 'it succeeded',
    (error: unknown) => error,
  );
  if (outcome instanceof PullError) return outcome;
  throw new Error('the pull should have failed with a PullError', { cause: outcome });
}

/** Hashes every layer of a pull as the store has it, without threads of its own, and compares it with its DiffID. */
export function assertProven(result: PullResult): void {
  hashLayers(
    result.store,
    result.layers.map(({ diffId }) => diffId),
  );
}

/**
 * Hashes every layer that a store has a record of, without threads of its own, and compares it with its DiffID; fails also when a
 * listed image lacks a layer. Returns how many layers there are.
 */
export function assertWhole(store: string, message?: string): number {
  const paths = storePaths(store);
  const recorded = listLayerFiles(paths).map(({ diffId }) => diffId);
  const named = listImageRecords(paths).flatMap(({ diffIds }) => diffIds);
  const diffIds = new Set([...recorded, ...named]);
  hashLayers(store, diffIds, message);
  return diffIds.size;
}

function hashLayers(store: string, diffIds: Iterable<string>, message?: string): void {
  const paths = storePaths(store);
  const reader = new PackReader(paths);
  try {
    for (const diffId of diffIds) {
      const record = readLayerRecord(paths, parseDigest(diffId, 'DiffID'));
      assert.ok(record !== undefined, `${message ?? store}: ${diffId} is not held`);
      const hash = createHash('sha256');
      for (const block of reader.blocks(record.extents)) hash.update(block);
      assert.equal(`sha256:${hash.digest('hex')}`, diffId, message);
    }
  } finally {
    reader.close();
  }
}

/** GETs of layer blobs, in the order of their arrival; configs are asked for without a range. */
export function layerAsks(registry: SandboxRegistry): readonly RequestRecord[] {
  return registry.requests.filter(
    ({ method, path, start, end }) =>
      method === 'GET' &&
      /^\/(v2|signed)\//.test(path) &&
      path.includes('sha256:') &&
      start !== null &&
      end !== null,
  );
}

/** Returns the sum of the requested bytes. */
export function askedBytes(asks: readonly RequestRecord[]): number {
  return asks.reduce((sum, { start, end }) => sum + (end ?? 0) - (start ?? 0), 0);
}

/** Fails when two requests asked for one byte of a blob. */
export function assertAskedOnce(asks: readonly RequestRecord[]): void {
  const ends = new Map<string, number>();
  for (const { path, start, end } of asks.toSorted((a, b) => (a.start ?? 0) - (b.start ?? 0))) {
    assert.ok((start ?? 0) >= (ends.get(path) ?? 0), `${path} was asked twice for byte ${start}`);
    ends.set(path, end ?? 0);
  }
}

/** Resolves with the first event that `wanted` accepts. */
export function firstEvent(wanted: (event: PullEvent) => boolean) {
  let onEvent: (event: PullEvent) => void = () => {};
  const seen = new Promise<void>((resolve) => {
    onEvent = (event) => {
      if (wanted(event)) resolve();
    };
  });
  return { seen, onEvent };
}

/** The one event of this kind. */
export function onlyEvent<Name extends PullEvent['event']>(
  { events }: Pick<Pulled, 'events'>,
  name: Name,
): Extract<PullEvent, { event: Name }> {
  const found = events.filter((event): event is Extract<PullEvent, { event: Name }> => event.event === name);
  assert.equal(found.length, 1, `events ${name}`);
  return found[0]!;
}

/** The warnings of a pull. */
export function warnings(events: readonly PullEvent[]): string[] {
  return events.flatMap((event) => (event.event === 'warning' ? [event.message] : []));
}

/** References of the images that a store lists as complete. */
export function listedImages(store: string): string[] {
  return listImageRecords(storePaths(store)).map(({ reference }) => reference);
}

/** Whether a store has a layer, proven. */
export function holdsLayer(store: string, diffId: string): boolean {
  return readLayerRecord(storePaths(store), parseDigest(diffId, 'DiffID')) !== undefined;
}
