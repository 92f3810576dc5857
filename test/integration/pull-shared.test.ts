import assert from 'node:assert/strict';
import { readdirSync, readlinkSync, rmSync, statSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { listStore, pruneStore, removeImage, verifyStore } from '../../src/api/store.js';
import { addLayer, emptyLayout, nameImage, noise, type Suffix, tarOf, writeTars } from '../support/layout.js';
import { findInPacks, flipByte, packFiles } from '../support/packs.js';
import { assertProven, pull, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { startServer } from '../support/scripted-server.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

const MIB = 2 ** 20;

/** Two versions of an image: of ten contents one is another, and one is new. */
const SAME = Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`f${i}`, noise(i + 1, 100_000)]));
const LARGE = noise(20, MIB + 50_000);
const V1 = tarOf({ ...SAME, large: LARGE, changed: noise(30, 100_000) });
const V2 = tarOf({ top: noise(31, 50_000), ...SAME, large: LARGE, changed: noise(32, 100_000) });
const NEW_BYTES = 150_000;
const V1_BYTES = V1.length;
/** Headers, and what a pack, its index and a record take beside. */
const SLACK_BYTES = 60_000;

/** Names a version of the image: chunked, or as one stream. */
async function addVersion(t: TestContext, layout: string, ref: string): Promise<void> {
  const [version, compression] = ref.split('-');
  const tar = version === 'v1' ? V1 : V2;
  if (compression === 'chunked') {
    await writeTars(t, layout, ref, [tar]);
    return;
  }
  const suffix: Suffix = compression === 'gzip' ? '+gzip' : compression === 'zstd' ? '+zstd' : '';
  nameImage(layout, ref, [await addLayer(layout, tar, suffix)], [digestOf(tar)]);
}

/** An empty store, and a registry with these versions. */
async function storeFor(t: TestContext, refs: readonly string[]) {
  const layout = emptyLayout(t);
  for (const ref of refs) await addVersion(t, layout, ref);
  const { host } = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  const take = async (ref: string) => (await pull(`${host}/x:${ref}`, { store })).result;
  return { store, take, host };
}

/** Room that the store's packs take. */
function packBytes(store: string): number {
  return packFiles(store, '').reduce((sum, path) => sum + statSync(path).blocks * 512, 0);
}

for (const [first, second] of [
  ['v1-zstd', 'v2-gzip'],
  ['v1-chunked', 'v2-tar'],
] as const) {
  test(`${second} fetches only new contents into a store that has ${first}, and stays when that is removed`, async (t) => {
    const { store, take, host } = await storeFor(t, [first, second]);
    await take(first);
    const alone = packBytes(store);
    assert.ok(alone >= V1_BYTES, `${alone}`);
    const result = await take(second);
    const grown = packBytes(store) - alone;
    assert.ok(grown >= NEW_BYTES && grown < NEW_BYTES + SLACK_BYTES, `${grown}`);
    assertProven(result);
    assert.deepEqual((await verifyStore({ store })).damaged, []);
    const listed = listStore({ store }).images;
    for (const { sharedBytes, image } of listed)
      assert.ok(sharedBytes > V1_BYTES - NEW_BYTES - SLACK_BYTES, `${image}: ${sharedBytes}`);
    await removeImage({ store, image: `${host}/x:${first}` });
    await pruneStore({ store });
    assert.deepEqual(await verifyStore({ store }), { checked: 1, damaged: [] });
    assertProven(result);
    assert.equal((await take(second)).fetchedBytes, 0);
  });
}

test('damaged bytes that two opaque layers share are written again, and both are complete', async (t) => {
  const { store, take } = await storeFor(t, ['v1-gzip', 'v2-gzip']);
  await take('v1-gzip');
  await take('v2-gzip');
  const { path, at } = findInPacks(store, SAME['f3']!);
  flipByte(path, at + 1000);
  assert.equal((await verifyStore({ store })).damaged.length, 2);
  const before = packBytes(store);
  for (const ref of ['v2-gzip', 'v1-gzip']) assertProven(await take(ref));
  assert.deepEqual(await verifyStore({ store }), { checked: 2, damaged: [] });
  const grown = packBytes(store) - before;
  const least = SAME['f3']!.length;
  assert.ok(grown >= least && grown < least + SLACK_BYTES, `${grown}`);
});

test('a pack that is deleted after an opaque layer shared its bytes costs the blob once more, and a warning', {
  skip: process.platform === 'linux' ? false : 'needs /proc',
}, async (t) => {
  const { store, take, host } = await storeFor(t, ['v1-gzip', 'v2-tar']);
  await take('v1-gzip');
  const [pack] = packFiles(store, '.pack') as [string];
  let ended = false;
  const gone = (async () => {
    while (!ended && !openFiles().includes(pack)) await sleep(5);
    rmSync(pack);
  })();
  const slow = await startServer((request, response) => void relay(host, gone, request, response));
  t.after(() => slow.close());
  const patience = { connectTimeoutMs: 20_000, idleTimeoutMs: 20_000 };
  const pulling = pull(`${slow.host}/x:v2-tar`, { store, ...patience });
  const { result, events } = await pulling.finally(() => {
    ended = true;
  });
  assert.deepEqual(warnings(events), [
    `the store lost contents that layer ${digestOf(V2)} shares; fetching the layer again`,
  ]);
  assertProven(result);
  assert.equal(result.fetchedBytes, 2 * V2.length);
});

/** Passes a request on; what is behind the beginning of a blob comes when something is done. */
async function relay(
  host: string,
  done: Promise<void>,
  { url = '', headers: { range } }: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (range !== undefined && !range.startsWith('bytes=0-')) await done;
  const answer = await fetch(`http://${host}${url}`, { ...(range && { headers: { range } }) });
  response.writeHead(answer.status, Object.fromEntries(answer.headers));
  response.end(Buffer.from(await answer.arrayBuffer()));
}

/** Files that this process has open. */
function openFiles(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      return []; // closed meanwhile
    }
  });
}
