import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { copyImage } from '../../src/api/copy.js';
import type { PullEvent, PullOptions } from '../../src/api/pull.js';
import type { FaultRule } from '../../src/sandbox/faults.js';
import type { SandboxRegistry } from '../../src/sandbox/registry-server.js';
import type { SampleFormat } from '../support/layers/sample-image.js';
import { writeSampleImage } from '../support/layers/sample-image.js';
import { emptyLayout, noise, tarOf } from '../support/layout.js';
import { askedBytes, assertProven, layerAsks, onlyEvent, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const FILES = Array.from({ length: 32 }, (_, i) => [`file${i}`, noise(i + 1, 128 * 1024)] as const);
const TAR = tarOf(Object.fromEntries(FILES));

/** A MiB, which a request is for here, takes two and a half seconds: a rest is worth several requests then. */
const RATE_BYTES = 400_000;

/** At this rate a MiB takes five minutes, which no test has. */
const TRICKLE_BYTES = 3500;

/** What a connection that is closed can have on the way. */
const IN_FLIGHT_BYTES = 64 * 1024;

const OPTIONS: Partial<PullOptions> = { connections: 12, workers: 1 };

/** The n-th request for a part of a layer comes slowly. */
function trickle(nth: number): FaultRule[] {
  const match = { path: '/blobs/', range: 'any', nth };
  return [{ match, action: { drip: { bytesPerSecond: TRICKLE_BYTES } } }];
}

async function serve(t: TestContext, format: SampleFormat, faults: readonly FaultRule[]) {
  const layout = emptyLayout(t);
  const path = join(temporaryDirectory(t), 'layer.tar');
  writeFileSync(path, TAR);
  await writeSampleImage({ layoutDir: layout, ref: 'v1', sources: [{ kind: 'tar', path }], format });
  return startSandbox(t, { layout, faults, ratePerConnectionBytes: RATE_BYTES });
}

/** One request was broken off; others brought what it did not, and it brought nothing that was thrown away. */
function assertTakenOver(registry: SandboxRegistry, fetchedBytes: number, nth: number): void {
  const asks = layerAsks(registry);
  const slow = asks[nth - 1]!;
  const rest = asks
    .filter(({ path, start, end }) => path === slow.path && start! > slow.start! && end! <= slow.end!)
    .toSorted((a, b) => a.start! - b.start!);
  assert.ok(slow.sentBytes < slow.end! - slow.start!, 'the slow one was waited for');
  const parts = Math.floor(askedBytes(rest) / RATE_BYTES);
  assert.ok(rest.length >= parts, `${rest.length} requests for ${parts} seconds`);
  for (const [i, { end }] of rest.entries()) assert.equal(end, rest[i + 1]?.start ?? slow.end);
  assert.ok(rest.every(({ connection }) => connection !== slow.connection));
  const sentBytes = asks.reduce((sum, ask) => sum + ask.sentBytes, 0);
  assert.ok(sentBytes >= fetchedBytes && sentBytes <= fetchedBytes + IN_FLIGHT_BYTES, `${sentBytes} sent`);
}

async function pullSlowly(t: TestContext, format: SampleFormat): Promise<void> {
  const nth = 3;
  const registry = await serve(t, format, trickle(nth));
  const pulled = await pull(`${registry.host}/x:v1`, { ...OPTIONS, store: temporaryDirectory(t) });
  assertProven(pulled.result);
  const { fetchedBytes, misses } = pulled.result;
  const planned = onlyEvent(pulled, 'planned');
  assert.deepEqual([fetchedBytes, misses], [planned.totalBytes, 0]);
  assertTakenOver(registry, fetchedBytes, nth);
}

async function copySlowly(t: TestContext): Promise<void> {
  const nth = 3;
  const registry = await serve(t, 'gzip', trickle(nth));
  const path = join(temporaryDirectory(t), 'layout');
  const destination = { kind: 'layout', path } as const;
  const events: PullEvent[] = [];
  const onEvent = (event: PullEvent) => events.push(event);
  const { fetchedBytes } = await copyImage(`${registry.host}/x:v1`, { ...OPTIONS, destination, onEvent });
  const planned = events.find((event) => event.event === 'planned');
  assert.ok(planned?.event === 'planned');
  assert.equal(fetchedBytes, planned.totalBytes);
  for (const { path: blob } of layerAsks(registry)) {
    const [, digest] = /sha256:(\w+)/.exec(blob)!;
    const bytes = readFileSync(join(path, 'blobs', 'sha256', digest!));
    assert.equal(createHash('sha256').update(bytes).digest('hex'), digest);
  }
  assertTakenOver(registry, fetchedBytes, nth);
}

/** Where all connections are as slow there is nobody to take over. */
async function pullFromSlowRegistry(t: TestContext): Promise<void> {
  const faults: FaultRule[] = [
    { match: { path: '/blobs/', range: 'any', nth: [2, 99] }, action: { drip: { bytesPerSecond: 200_000 } } },
  ];
  const registry = await serve(t, 'zstd:chunked', faults);
  const pulled = await pull(`${registry.host}/x:v1`, { ...OPTIONS, store: temporaryDirectory(t) });
  assert.equal(pulled.result.requests, onlyEvent(pulled, 'planned').requests);
  assert.ok(layerAsks(registry).every(({ start, end, sentBytes }) => sentBytes === end! - start!));
}

test('the rest of a range that comes much slower than others is fetched over other connections', {
  concurrency: true,
}, async (t) => {
  const formats = ['zstd:chunked', 'zstd:chunked-old', 'estargz', 'gzip'] as const;
  await Promise.all([
    ...formats.map((format) => t.test(`of ${format}`, (t) => pullSlowly(t, format))),
    t.test('of a copy', (t) => copySlowly(t)),
    t.test('but not where all are as slow', (t) => pullFromSlowRegistry(t)),
  ]);
});
