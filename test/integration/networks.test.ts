/**
 * Networks that fail, a row each, by what the server saw. Elsewhere: URLs that expire by the clock, Retry-After and a
 * server that is gone for good (pull-faults), flipped bytes (pull-refetch).
 */
import assert from 'node:assert/strict';
import { cpSync } from 'node:fs';
import { createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import type { FaultAction, FaultMatch, FaultRule } from '../../src/sandbox/faults.js';
import {
  type RegistryOptions,
  type SandboxRegistry,
  startRegistry,
} from '../../src/sandbox/registry-server.js';
import type { RequestRecord } from '../../src/sandbox/serve-request.js';
import { NEEDS_OPENSSL, trustTestAuthority } from '../support/certificate.js';
import { largerImage } from '../support/file-fixtures.js';
import { emptyLayout, noise, readManifest, tarOf, writeTars } from '../support/layout.js';
import { assertProven, failureOf, layerAsks, onlyEvent, type Pulled, pull } from '../support/pull.js';
import { seeded } from '../support/random.js';
import { startSandbox } from '../support/sandbox.js';
import { listen } from '../support/scripted-server.js';
import { temporaryDirectory } from '../support/temporary.js';
import { tlsFront } from '../support/tls-front.js';

/** 12 files of 512 KiB in one layer. */
const FILES = 12;

/** Where to pull from: the registry itself, or by TLS. */
async function over(t: TestContext, link: Link, registry: SandboxRegistry): Promise<string> {
  if (link === 'http') return registry.host;
  trustTestAuthority(t);
  return tlsFront(t, registry.host);
}

/** Asks of a blob by the end of their range: retries of a range keep its end. */
function byRange(asks: readonly RequestRecord[]): RequestRecord[][] {
  const ranges = new Map<number, RequestRecord[]>();
  for (const ask of asks) ranges.set(ask.end!, [...(ranges.get(ask.end!) ?? []), ask]);
  return [...ranges.values()];
}

/** Each retry began where bytes had come to: none that was received was asked for again. */
function assertNothingTwice({ result, events }: Pulled, registry: SandboxRegistry): void {
  assert.equal(result.fetchedBytes, onlyEvent({ events }, 'planned').totalBytes);
  for (const asks of byRange(layerAsks(registry))) {
    for (const [i, ask] of asks.entries()) {
      const before = asks[i - 1];
      if (before === undefined) continue;
      assert.ok(ask.start! >= before.start! && ask.start! <= before.start! + before.sentBytes);
    }
  }
}

type Link = 'http' | 'TLS';

async function pullBroken(t: TestContext, link: Link): Promise<void> {
  const { layout, digest } = await largerImage(FILES);
  const faults = [{ match: { path: digest, range: 'any' }, action: { closeAfterBytes: 256 * 1024 } }];
  const registry = await startSandbox(t, { layout, faults });
  const host = await over(t, link, registry);
  const pulled = await pull(`${host}/x:larger`, { store: temporaryDirectory(t), connections: 8 });
  assertProven(pulled.result);
  assert.ok(pulled.result.misses >= FILES, `${pulled.result.misses} misses`);
  assertNothingTwice(pulled, registry);
}

async function pullStalled(t: TestContext, link: Link): Promise<void> {
  const { layout, digest } = await largerImage(FILES);
  // The second range request for content: the first is for metadata.
  const stall: FaultRule = {
    match: { path: digest, range: 'any', nth: 2 },
    action: { stallAfterBytes: 100_000 },
  };
  const registry = await startSandbox(t, { layout, faults: [stall] });
  const host = await over(t, link, registry);
  const options = { store: temporaryDirectory(t), connections: 3, idleTimeoutMs: 1500 };
  const pulled = await pull(`${host}/x:larger`, options);
  assertProven(pulled.result);
  assert.equal(pulled.result.misses, 1);
  assertNothingTwice(pulled, registry);
  const asks = layerAsks(registry);
  const retry = asks.findIndex((ask, i) => asks.slice(0, i).some(({ end }) => end === ask.end));
  const stalled = asks.findIndex(({ end }) => end === asks[retry]!.end);
  // Two others were under way with it; what was asked for beyond them, other connections fetched meanwhile.
  assert.ok(retry - stalled > 3, `asked for again after ${retry - stalled} others`);
}

async function pullDeserted(t: TestContext, link: Link): Promise<void> {
  const { layout } = await largerImage(FILES);
  let registry = await startRegistry({ layout, rateBytes: 3e6 });
  t.after(() => registry.close());
  const host = await over(t, link, registry);
  const port = Number(registry.host.split(':')[1]);
  let away: Promise<void> | undefined;
  const leave = async (): Promise<void> => {
    await registry.close();
    await new Promise((resolve) => setTimeout(resolve, 2000));
    registry = await startRegistry({ layout, port });
  };
  const pulled = await pull(`${host}/x:larger`, {
    store: temporaryDirectory(t),
    connections: 3,
    patienceMs: 400,
    onEvent: (event) => {
      if (event.event === 'progress' && event.receivedBytes > 2e6) away ??= leave();
    },
  });
  await away;
  assertProven(pulled.result);
  assert.ok(pulled.result.misses >= 3);
  assert.equal(pulled.result.fetchedBytes, onlyEvent(pulled, 'planned').totalBytes);
}

for (const [what, pullFrom] of [
  ['connections that break every 256 KiB cost no byte twice', pullBroken],
  ['a stalled connection is replaced, and the others do not wait for it', pullStalled],
  ['a pull continues when a server comes back after five time constants', pullDeserted],
] as const) {
  test(what, { concurrency: true }, async (t) => {
    await Promise.all([
      t.test('over http', (t) => pullFrom(t, 'http')),
      t.test('over TLS', NEEDS_OPENSSL, (t) => pullFrom(t, 'TLS')),
    ]);
  });
}

/** A fault for each of the first 400 such requests, by chance; undefined leaves it alone. */
function byChance(match: FaultMatch, choose: () => FaultAction | undefined): FaultRule[] {
  return Array.from({ length: 400 }, (_, i) => i + 1).flatMap((nth) => {
    const action = choose();
    return action === undefined ? [] : [{ match: { ...match, nth }, action }];
  });
}

test('responses that are all cut at a random byte cost no byte twice', async (t) => {
  const { layout, digest } = await largerImage(FILES);
  const random = seeded(20261125);
  const cut = () => ({ closeAfterBytes: 1 + Math.floor(random() * 600_000) });
  const faults = byChance({ path: digest, range: 'any' }, cut);
  const registry = await startSandbox(t, { layout, faults });
  const pulled = await pull(`${registry.host}/x:larger`, { store: temporaryDirectory(t), connections: 6 });
  assertProven(pulled.result);
  assert.ok(pulled.result.misses > 0);
  assertNothingTwice(pulled, registry);
});

test('half of all requests after the manifest may fail at random', async (t) => {
  const { layout } = await largerImage(FILES);
  // With this seed the config fails twice and the metadata once before contents are asked for.
  const random = seeded(19);
  const failures: readonly FaultAction[] = [{ status: 500 }, { status: 502 }, { closeAfterBytes: 0 }];
  const choose = () => (random() < 0.5 ? failures[Math.floor(random() * failures.length)] : undefined);
  const faults = byChance({ path: '/blobs/' }, choose);
  const registry = await startSandbox(t, { layout, faults });
  const pulled = await pull(`${registry.host}/x:larger`, { store: temporaryDirectory(t), connections: 6 });
  assertProven(pulled.result);
  assert.ok(pulled.result.misses >= 3, `${pulled.result.misses} misses`);
  const { config } = readManifest(layout, 'larger');
  const asks = registry.requests.filter(({ path }) => path.endsWith(config.digest));
  assert.deepEqual(
    asks.map(({ status }) => status),
    [500, 0, 200],
  );
  assert.equal(pulled.result.fetchedBytes, onlyEvent(pulled, 'planned').totalBytes);
});

/**
 * 10 bytes a second and a failure every 10 s, ten times as fast: karma knows time only as a share of its time constant,
 * so with a tenth of that the formula has the same numbers in it. The second before each retry does not shrink along:
 * that is ten time constants without a byte instead of one, and so against us.
 */
test('a pull continues with 100 bytes and a failure each second at a time constant of 0.1 s, and ends with the failures alone', async (t) => {
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'it', [tarOf({ file: noise(1, 100) })]);
  const { digest } = readManifest(layout, 'it').layers[0]!;
  const run = async (action: FaultAction) => {
    // The first is for the metadata.
    const faults = [{ match: { path: digest, range: 'any', nth: [2, 100] as const }, action }];
    const registry = await startSandbox(t, { layout, faults });
    const options = { store: temporaryDirectory(t), connections: 1, patienceMs: 100 };
    return { registry, pulling: pull(`${registry.host}/x:it`, options) };
  };
  const slow = await run({ drip: { bytesPerSecond: 100, closeAfterBytes: 100 } });
  const dead = await run({ closeAfterBytes: 0 });
  const [pulled, error] = await Promise.all([slow.pulling, failureOf(dead.pulling)]);
  assertProven(pulled.result);
  assert.equal(pulled.result.misses, 2);
  assertNothingTwice(pulled, slow.registry);
  assert.deepEqual([error.code, error.exitCode], ['network-hopeless', 5]);
});

/** Of an image `all` of one layer, a store that has every second file: whoever uses it asks for the others one by one. */
async function scatteredImage(t: TestContext) {
  const layout = emptyLayout(t);
  // The others have 8.8 MB, as 8 MiB are what more than one thread is started for.
  const sizeKiB = (i: number) => (i % 2 === 1 ? 40 : 72);
  const files = Array.from({ length: 240 }, (_, i) => [`file${i}`, noise(i + 1, sizeKiB(i) * 1024)] as const);
  const held = files.filter((_, i) => i % 2 === 1);
  await writeTars(t, layout, 'held', [tarOf(Object.fromEntries(held))]);
  await writeTars(t, layout, 'all', [tarOf(Object.fromEntries(files))]);
  const { host } = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  await pull(`${host}/x:held`, { store, workers: 1 });
  return { layout, digest: readManifest(layout, 'all').layers[0]!.digest, store };
}

test('tokens and signed URLs that expire in the middle of a layer are renewed once each time, without a miss', async (t) => {
  const { layout, digest, store } = await scatteredImage(t);
  const connections = 4;
  const lifeMs = 300;
  const issuedMs: number[] = [];
  const expiring = {
    tokens: {
      latencyMs: 20,
      requireToken: { expiresAfterMs: lifeMs },
      onRequest: ({ path }: RequestRecord) => {
        if (path === '/token') issuedMs.push(performance.now());
      },
    },
    URLs: { faults: [{ match: { path: digest }, action: { redirect: { expiresAfterRequests: 20 } } }] },
  };
  const pullFrom = async (options: Partial<RegistryOptions>) => {
    const registry = await startSandbox(t, { layout, ...options });
    const copy = temporaryDirectory(t);
    cpSync(store, copy, { recursive: true });
    const { result } = await pull(`${registry.host}/x:all`, { store: copy, workers: 2, connections });
    assert.equal(result.misses, 0);
    assertProven(result);
    return (wanted: number) =>
      registry.requests.filter(({ path, status }) => path.endsWith(digest) && status === wanted).length;
  };

  const ofTokens = await pullFrom(expiring.tokens);
  assert.ok(
    ofTokens(401) >= 2 && issuedMs.length >= 2,
    `${ofTokens(401)} refusals, ${issuedMs.length} tokens`,
  );
  // The next token is asked for when the one before has expired; the rest is room for a busy machine.
  const apartMs = issuedMs.slice(1).map((ms, i) => Math.round(ms - issuedMs[i]!));
  assert.ok(
    apartMs.every((ms) => ms > lifeMs / 4),
    `asked after ${apartMs.join(', ')} ms`,
  );

  const count = await pullFrom(expiring.URLs);
  assert.ok(count(206) > 100 && count(403) > 0, `${count(206)} answers, ${count(403)} refusals`);
  // The metadata's request and the first of each connection ask for themselves and use their URL at least once; every
  // other URL is a renewal, and is used twenty times before the next.
  const first = 1 + connections;
  const most = first + Math.ceil((count(206) - first) / 20);
  assert.ok(count(307) <= most, `${count(307)} URLs for ${count(206)} answers, ${count(403)} refusals`);
});

test('a host without an address, or that accepts and never answers, ends the pull with the cause and a hint', async (t) => {
  const silent = createServer();
  const host = await listen(silent);
  t.after(() => silent.close());
  for (const [name, words] of [
    [host, /did not begin to answer in time/],
    ['no-such-host.invalid', /(cannot find|cannot look up) host no-such-host\.invalid/],
  ] as const) {
    const options = { store: temporaryDirectory(t), answerTimeoutMs: 300 };
    const error = await failureOf(pull(`${name}/x:y`, options));
    assert.deepEqual([error.code, error.exitCode], ['network-hopeless', 5]);
    assert.match(error.message, words);
    assert.ok(error.hint !== undefined);
  }
});
