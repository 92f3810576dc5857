import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FaultRule } from '../../src/sandbox/faults.js';
import type { RegistryOptions } from '../../src/sandbox/registry-server.js';
import type { RequestRecord } from '../../src/sandbox/serve-request.js';
import { outcomesOf, startPullingChild } from '../support/child.js';
import { largerImage } from '../support/file-fixtures.js';
import { LAYER_DIGEST } from '../support/fixture-layout.js';
import { emptyLayout, metadataRanges, noise, readManifest, tarOf, writeTars } from '../support/layout.js';
import {
  assertProven,
  failureOf,
  layerAsks,
  listedImages,
  onlyEvent,
  pull,
  warnings,
} from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { listen } from '../support/scripted-server.js';
import { temporaryDirectory } from '../support/temporary.js';

/** The content of the largest layer of chunked-v1, which one span covers. */
const CONTENT_END = 363_014;

/** Ranges that were asked for of the content of that layer. */
function contentRanges(asks: readonly RequestRecord[]): Array<[number, number]> {
  return asks
    .filter(({ path, end }) => path.endsWith(LAYER_DIGEST) && end! <= CONTENT_END)
    .map(({ start, end }) => [start!, end!]);
}

test('after a connection breaks, the next request begins at the first missing byte', async (t) => {
  const registry = await startSandbox(t, {
    faults: [{ match: { path: LAYER_DIGEST, range: 'any' }, action: { closeAfterBytes: 150_000 } }],
  });
  const pulled = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
  assertProven(pulled.result);
  const ranges = contentRanges(layerAsks(registry));
  assert.ok(ranges.length >= 3, `${ranges.length} requests`);
  for (const [i, [start, end]] of ranges.entries()) {
    assert.equal(end, CONTENT_END);
    assert.ok(i === 0 ? start === 0 : start > ranges[i - 1]![0] && start <= ranges[i - 1]![0] + 150_000);
  }
  assert.equal(pulled.result.misses, ranges.length - 1);
  // Exactly the bytes that were planned: none was received twice.
  const planned = onlyEvent(pulled, 'planned');
  assert.equal(pulled.result.fetchedBytes, planned.totalBytes);
  assert.equal(pulled.result.requests, planned.requests + ranges.length - 1);
  assert.equal(pulled.events.filter(({ event }) => event === 'miss').length, ranges.length - 1);
});

test('a connection that falls silent is a miss, and the next request begins at the first missing byte', async (t) => {
  const registry = await startSandbox(t, {
    faults: [
      { match: { path: LAYER_DIGEST, range: `0-${CONTENT_END - 1}` }, action: { stallAfterBytes: 100_000 } },
    ],
  });
  const pulled = await pull(`${registry.host}/x:chunked-v1`, {
    store: temporaryDirectory(t),
    idleTimeoutMs: 1000,
  });
  assertProven(pulled.result);
  assert.deepEqual(contentRanges(layerAsks(registry)), [
    [0, CONTENT_END],
    [100_000, CONTENT_END],
  ]);
  assert.equal(pulled.result.misses, 1);
  assert.equal(pulled.result.fetchedBytes, onlyEvent(pulled, 'planned').totalBytes);
});

test('metadata is continued after its connection breaks, too', async (t) => {
  const registry = await startSandbox(t, {
    faults: [{ match: { path: LAYER_DIGEST, range: 'any', nth: 1 }, action: { closeAfterBytes: 5000 } }],
  });
  const { result } = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
  assertProven(result);
  assert.equal(result.misses, 1);
});

test('an answer with a wrong Content-Range is not used', async (t) => {
  const wrongContentRange = 'bytes 0-363013/400000';
  const registry = await startSandbox(t, {
    faults: [{ match: { path: LAYER_DIGEST, range: 'any' }, action: { wrongContentRange } }],
  });
  const store = temporaryDirectory(t);
  const error = await failureOf(pull(`${registry.host}/x:chunked-v1`, { store }));
  assert.deepEqual([error.code, error.exitCode, error.layer], ['metadata-malformed', 6, LAYER_DIGEST]);
  assert.deepEqual(listedImages(store), []);
});

test('after a registry sends less than requested, the next request continues from there', async (t) => {
  const registry = await startSandbox(t, {
    faults: [{ match: { path: '/blobs/', range: 'any' }, action: { shortRange: 100_000 } }],
  });
  const pulled = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
  assertProven(pulled.result);
  assert.equal(pulled.result.misses, 0);
  assert.equal(pulled.result.fetchedBytes, onlyEvent(pulled, 'planned').totalBytes);
  assert.equal(contentRanges(layerAsks(registry)).length, Math.ceil(CONTENT_END / 100_000));
});

test('an answer that contradicts itself is a miss for every kind of request', async (t) => {
  for (const [range, wrongContentRange] of [
    [`0-${CONTENT_END - 1}`, `bytes 5-${CONTENT_END + 4}/378391`],
    [`0-${CONTENT_END - 1}`, 'bytes 0-99/378391'],
    ['any', 'bytes 0-9/378391'],
  ] as const) {
    const match = { path: LAYER_DIGEST, range, nth: 1 };
    const registry = await startSandbox(t, { faults: [{ match, action: { wrongContentRange } }] });
    const { result } = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
    assertProven(result);
    assert.equal(result.misses, 1);
  }
});

test('a useless request for metadata is counted like any other', async (t) => {
  const registry = await startSandbox(t, {
    faults: [
      {
        match: { path: LAYER_DIGEST, range: 'any', nth: 1 },
        action: { wrongContentRange: 'bytes 0-9/400000' },
      },
    ],
  });
  const { result, events } = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
  assertProven(result);
  assert.equal(warnings(events).length, 1);
  assert.equal(result.requests, layerAsks(registry).length);
});

test('an image can be pulled from a server that answers every range with the full blob', async (t) => {
  const registry = await startSandbox(t, {
    faults: [{ match: { range: 'any' }, action: { ignoreRange: true } }],
  });
  const { result } = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
  assertProven(result);
  assert.equal(result.misses, 0);
  assert.ok(layerAsks(registry).every(({ status }) => status === 200));
});

test('a registry that never accepts its own tokens is not asked endlessly', async (t) => {
  const registry = await startSandbox(t, {
    faults: [{ match: { path: LAYER_DIGEST }, action: { challenge: { always: true } } }],
  });
  const store = temporaryDirectory(t);
  const error = await failureOf(pull(`${registry.host}/x:chunked-v1`, { store }));
  assert.deepEqual([error.code, error.exitCode, error.layer], ['unauthorized', 4, LAYER_DIGEST]);
  assert.ok(registry.requests.length < 20);
});

test('a request to wait is not a miss, for any thread', async (t) => {
  const registry = await startSandbox(t, {
    faults: [
      { match: { path: '/manifests/', nth: 1 }, action: { retryAfter: { status: 429, seconds: 1 } } },
      { match: { path: LAYER_DIGEST, nth: [2, 3] }, action: { retryAfter: { status: 503, seconds: 1 } } },
    ],
  });
  const options = { store: temporaryDirectory(t), patienceMs: 10 };
  const { result, events } = await pull(`${registry.host}/x:chunked-v1`, options);
  assertProven(result);
  assert.equal(result.misses, 0);
  assert.deepEqual(
    registry.requests.map(({ status }) => status).filter((status) => status >= 400),
    [429, 503, 503],
  );
  const waits = events.filter((event) => event.event === 'waiting');
  assert.ok(waits.length >= 2, `${waits.length} waits are told`);
  assert.ok(waits.every(({ host, waitMs }) => host === registry.host && waitMs === 1000));
});

test('a registry that refuses some concurrent requests gets fewer of them, without a miss', async (t) => {
  const { layout } = await largerImage(12);
  const match = { path: '/blobs/', range: 'any', nth: [3, 8] as const };
  const registry = await startSandbox(t, { layout, faults: [{ match, action: { status: 429 } }] });
  const options = { store: temporaryDirectory(t), connections: 8, workers: 2 };
  const pulled = await pull(`${registry.host}/x:larger`, options);
  assertProven(pulled.result);
  assert.equal(pulled.result.misses, 0);
  assert.equal(registry.requests.filter(({ status }) => status === 429).length, 6);
  assert.ok(pulled.events.some(({ event }) => event === 'waiting'));
});

test('signed URLs that expire during the pull are requested from the registry again', async (t) => {
  const { layout, digest } = await largerImage(12);
  const registry = await startSandbox(t, {
    layout,
    requireToken: {},
    rateBytes: 3e6,
    faults: [{ match: { path: '/blobs/' }, action: { redirect: { expiresAfterMs: 500 } } }],
  });
  const { result } = await pull(`${registry.host}/x:larger`, {
    store: temporaryDirectory(t),
    connections: 2,
  });
  assertProven(result);
  assert.equal(result.misses, 0);
  const signed = registry.requests.filter(({ path }) => path.startsWith('/signed/') && path.endsWith(digest));
  assert.ok(signed.some(({ status }) => status === 403));
  assert.ok(signed.every(({ status }) => status !== 400));
});

test('a new signed URL is requested from the registry once, not by each worker', async (t) => {
  const { layout, digest } = await largerImage(36);
  const lifeMs = 300;
  const askedMs: number[] = [];
  const registry = await startSandbox(t, {
    layout,
    rateBytes: 6e6,
    faults: [{ match: { path: '/blobs/' }, action: { redirect: { expiresAfterMs: lifeMs } } }],
    onRequest: ({ status, path }) => {
      if (status === 307 && path.endsWith(digest)) askedMs.push(performance.now());
    },
  });
  const options = { store: temporaryDirectory(t), connections: 4, workers: 2 };
  const { result } = await pull(`${registry.host}/x:larger`, options);
  assertProven(result);
  assert.equal(result.misses, 0);
  // One range asks for all; again when the URL that it found has expired.
  const soon = askedMs.filter((ms, i) => i > 0 && ms - askedMs[i - 1]! < lifeMs / 2);
  assert.ok(
    soon.length <= 4,
    `asked after ${askedMs.map((ms) => Math.round(ms - askedMs[0]!)).join(', ')} ms`,
  );
  assert.ok(askedMs.length - soon.length >= 3);
});

test('of ranges that begin at the same time, one requests the redirect target from the registry', async (t) => {
  const { layout, digest } = await largerImage(24);
  const faults: FaultRule[] = [{ match: { path: '/blobs/' }, action: { redirect: {} } }];
  const registry = await startSandbox(t, { layout, faults, latencyMs: 10 });
  const options = { store: temporaryDirectory(t), connections: 16, workers: 4 };
  assertProven((await pull(`${registry.host}/x:larger`, options)).result);
  const ofLayer = registry.requests.filter(({ path }) => path.endsWith(digest));
  assert.equal(ofLayer.filter(({ status }) => status === 307).length, 1);
  assert.ok(ofLayer.filter(({ status }) => status === 206).length > 8);
});

test('signed URLs that are valid for one request cost each range one more request, and few others', async (t) => {
  const { layout, digest } = await largerImage(36);
  const action = { redirect: { expiresAfterRequests: 1 } };
  const registry = await startSandbox(t, { layout, faults: [{ match: { path: '/blobs/' }, action }] });
  const options = { store: temporaryDirectory(t), connections: 8, workers: 2 };
  const { result } = await pull(`${registry.host}/x:larger`, options);
  assertProven(result);
  assert.equal(result.misses, 0);
  const count = (wanted: number) =>
    registry.requests.filter(({ path, status }) => path.endsWith(digest) && status === wanted).length;
  // What the metadata was found by is refused to all connections, and two more in a row, refused soon after they were found, show what such
  // URLs are good for: three waves of eight, and as many more on a machine that is too busy to be soon. Without that, most ranges are refused.
  assert.ok(count(403) <= 6 * 8, `${count(403)} refused`);
  assert.ok(count(307) <= count(206) + 8, `${count(307)} redirects for ${count(206)} ranges`);
});

test('a port where nothing listens ends the pull at once, after one miss', async (t) => {
  const server = createServer();
  const host = await listen(server);
  await new Promise((resolve) => server.close(resolve));
  const store = temporaryDirectory(t);
  const events: string[] = [];
  const started = performance.now();
  const error = await failureOf(pull(`${host}/x:y`, { store, onEvent: ({ event }) => events.push(event) }));
  // No wait of a second before or after the one miss; the rest is room for a busy machine.
  assert.ok(performance.now() - started < 900, `${performance.now() - started} ms`);
  assert.deepEqual([error.code, error.exitCode], ['network-hopeless', 5]);
  assert.ok(error.message.includes(host), error.message);
  assert.ok(error.hint !== undefined);
  assert.deepEqual(listedImages(store), []);
});

test('bytes received long before a stall buy no patience: twenty time constants of silence end the pull', async (t) => {
  const layout = emptyLayout(t);
  // One layer: nothing else begins or ends meanwhile.
  await writeTars(t, layout, 'it', [tarOf({ file: noise(1, 100_000) })]);
  const layer = readManifest(layout, 'it').layers[0]!;
  const end = metadataRanges(layer).toc[0] - 8;
  const stall: FaultRule = {
    match: { path: layer.digest, range: `0-${end - 1}` },
    action: { stallAfterBytes: 20_000 },
  };
  const registry = await startSandbox(t, { layout, faults: [stall] });
  const options = { store: temporaryDirectory(t), patienceMs: 50, idleTimeoutMs: 1000 };
  const error = await failureOf(pull(`${registry.host}/x:it`, options));
  assert.equal(error.code, 'network-hopeless');
  // Had the 20,000 bytes counted in full when the miss came, the rest would have been asked for.
  assert.equal(layerAsks(registry).filter((ask) => ask.end === end).length, 1);
});

test('reading metadata uses no more connections than the pull may use', async (t) => {
  const layout = emptyLayout(t);
  const tars = Array.from({ length: 12 }, (_, i) => tarOf({ [`file${i}`]: noise(i + 1, 3000) }));
  await writeTars(t, layout, 'layers', tars);
  for (const connections of [1, 3]) {
    const registry = await startSandbox(t, { layout, latencyMs: 20 });
    const options = { store: temporaryDirectory(t), workers: 8, connections };
    assertProven((await pull(`${registry.host}/x:layers`, options)).result);
    const metadata = layerAsks(registry).filter(({ start }) => start !== 0);
    assert.equal(metadata.length, 12);
    const used = new Set(metadata.map(({ connection }) => connection));
    assert.ok(used.size <= connections, `${used.size} connections`);
  }
});

/** A registry over a slow link that is gone once some content has been received. */
async function vanishing(t: TestContext, options: Partial<RegistryOptions>) {
  const { layout } = await largerImage(12);
  const registry = await startSandbox(t, { layout, rateBytes: 2e6, ...options });
  return {
    registry,
    vanish: (receivedBytes: number) => {
      if (receivedBytes > 300_000) void registry.close();
    },
  };
}

test('when a server vanishes during the pull, the pull ends when karma is used up, and the process exits', async (t) => {
  const { registry, vanish } = await vanishing(t, {});
  const store = temporaryDirectory(t);
  const options = { store, workers: 2, patienceMs: 100 };
  const child = startPullingChild(t, { image: `${registry.host}/x:larger`, options }, (line) => {
    if (line.event === 'progress') vanish(line.receivedBytes);
  });
  assert.equal(await child.gone, 0);
  const [outcome] = outcomesOf(child.lines);
  assert.ok(outcome !== undefined && 'code' in outcome && outcome.code === 'network-hopeless');
  // The reason is the miss that was one too many, in its own words.
  const misses = child.lines.flatMap((line) => (line.event === 'miss' ? [line.message] : []));
  assert.ok(misses.includes(outcome.message), outcome.message);
  assert.deepEqual(listedImages(store), []);
});

test('bytes received before a server vanished are not fetched again', async (t) => {
  const { registry, vanish } = await vanishing(t, {});
  const { layout, digest } = await largerImage(12);
  const store = temporaryDirectory(t);
  const options = { store, workers: 2, connections: 4, patienceMs: 100 };
  const error = await failureOf(
    pull(`${registry.host}/x:larger`, {
      ...options,
      onEvent: (event) => {
        if (event.event === 'progress') vanish(event.receivedBytes);
      },
    }),
  );
  assert.equal(error.code, 'network-hopeless');
  const second = await startSandbox(t, { layout });
  const pulled = await pull(`${second.host}/x:larger`, options);
  assertProven(pulled.result);
  assert.ok(pulled.result.resumedBytes > 0);
  assert.equal(pulled.result.fetchedBytes, onlyEvent(pulled, 'planned').totalBytes);
  assert.ok(layerAsks(second).every(({ path }) => path.endsWith(digest)));
});

test('an abort during the pull ends it at once with the given reason, and the next pull resumes', async (t) => {
  const { layout } = await largerImage(12);
  const registry = await startSandbox(t, { layout, rateBytes: 2e6 });
  const store = temporaryDirectory(t);
  const controller = new AbortController();
  let abortedMs = 0;
  const error = await failureOf(
    pull(`${registry.host}/x:larger`, {
      store,
      signal: controller.signal,
      onEvent: (event) => {
        if (event.event !== 'progress' || event.writtenBytes < 500_000 || abortedMs > 0) return;
        abortedMs = performance.now();
        controller.abort();
      },
    }),
  );
  // The rest of the image would take three seconds more.
  assert.ok(performance.now() - abortedMs < 2000, `${performance.now() - abortedMs} ms`);
  assert.deepEqual([error.code, error.exitCode], ['interrupted', 130]);
  assert.deepEqual(listedImages(store), []);
  const { result } = await pull(`${registry.host}/x:larger`, { store });
  assertProven(result);
  assert.ok(result.resumedBytes >= 500_000, `${result.resumedBytes}`);
});

test('a pull whose signal was aborted before sends no request', async (t) => {
  const registry = await startSandbox(t);
  const signal = AbortSignal.abort();
  const error = await failureOf(
    pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t), signal }),
  );
  assert.equal(error.code, 'interrupted');
  assert.equal(registry.requests.length, 0);
});

test('an abort during the renewal of a token leaves nothing that fails later', async (t) => {
  const { layout } = await largerImage(12);
  const registry = await startSandbox(t, {
    layout,
    rateBytes: 1e6,
    latencyMs: 200,
    requireToken: { expiresAfterMs: 1500 },
  });
  const controller = new AbortController();
  // The second token is asked for by the workers: manifest and config are there long before the first one dies.
  const watch = setInterval(() => {
    if (registry.requests.filter(({ path }) => path === '/token').length > 1) controller.abort();
  }, 10);
  t.after(() => clearInterval(watch));
  const options = { store: temporaryDirectory(t), signal: controller.signal, connections: 2 };
  assert.equal((await failureOf(pull(`${registry.host}/x:larger`, options))).code, 'interrupted');
  // An unhandled rejection by then would fail this test.
  await sleep(500);
});

test("while the rate limit delays all requests, karma's clock is paused", async (t) => {
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'it', [tarOf({ file: noise(1, 60_000) })]);
  const { digest } = readManifest(layout, 'it').layers[0]!;
  const registry = await startSandbox(t, {
    layout,
    faults: [{ match: { path: digest, range: 'any' }, action: { closeAfterBytes: 25_000 } }],
  });
  // 25,000 bytes are paid for after 1.25 s: forty time constants, in which they would fade to nothing before the failure.
  const options = { store: temporaryDirectory(t), limitRate: 20_000, patienceMs: 30 };
  const { result } = await pull(`${registry.host}/x:it`, options);
  assertProven(result);
  assert.equal(result.misses, 2);
});

test('a rate limit applies to all threads and connections together', async (t) => {
  const { layout } = await largerImage(12);
  const registry = await startSandbox(t, { layout });
  const options = { store: temporaryDirectory(t), limitRate: 4e6, connections: 8, workers: 2 };
  const { result } = await pull(`${registry.host}/x:larger`, options);
  assertProven(result);
  // A busy machine is slower and never faster; without the limit it takes a third of this.
  const leastMs = (result.fetchedBytes / 4e6) * 1000;
  assert.ok(result.durationMs > 0.9 * leastMs, `${result.durationMs} of ${leastMs} ms`);
});

test('tar bytes are verified before all spans are requested', async (t) => {
  const { layout } = await largerImage(14);
  const registry = await startSandbox(t, { layout, rateBytes: 2e6 });
  const seen: Array<{ verifiedBytes: number; asks: number }> = [];
  const { result } = await pull(`${registry.host}/x:larger`, {
    store: temporaryDirectory(t),
    connections: 2,
    onEvent: (event) => {
      if (event.event === 'progress') {
        seen.push({ verifiedBytes: event.verifiedBytes, asks: layerAsks(registry).length });
      }
    },
  });
  assertProven(result);
  const all = layerAsks(registry).length;
  assert.ok(seen.some(({ verifiedBytes, asks }) => verifiedBytes > 0 && asks < all));
  assert.equal(seen.at(-1)!.verifiedBytes, result.layers[0]!.tarBytes);
});

test('with debug every request of a pull has a line, and a retry states its reason', async (t) => {
  const registry = await startSandbox(t, {
    requireToken: {},
    faults: [
      { match: { path: LAYER_DIGEST, range: 'any', nth: 2 }, action: { challenge: { always: true } } },
    ],
  });
  const pulled = await pull(`${registry.host}/x:chunked-v1`, { store: temporaryDirectory(t), debug: true });
  assertProven(pulled.result);
  const lines = pulled.events.flatMap((event) => (event.event === 'debug' ? [event.line] : []));
  const requests = lines.filter((line) => /^(GET|HEAD) /.test(line));
  assert.equal(requests.length, registry.requests.length);
  const refused = requests.filter((line) => line.includes('/blobs/') && line.includes(': 401, '));
  assert.equal(refused.length, 1);
  assert.ok(refused[0]!.endsWith(`; again, as ${registry.host} requires a new token`), refused[0]);
  assert.doesNotMatch(lines.join(), /Bearer|scope=/);
});
