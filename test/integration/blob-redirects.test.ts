/** Blobs that lie elsewhere than at their registry. Elsewhere: URLs that expire by the hundred (pull-faults, networks), credentials (session-redirects). */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { FaultAction, FaultRule } from '../../src/sandbox/faults.js';
import type { RequestRecord } from '../../src/sandbox/serve-request.js';
import { asksFor, blobsImage, copyBlobs, inTurn } from '../support/blobs.js';
import { startSandbox } from '../support/sandbox.js';

const BYTES = 60_000;
const SHORT = { shortRange: 20_000 };

/** To the blob in another registry. */
function leadTo(origin: string, digest: string): FaultAction {
  return { status: 307, headers: { Location: `${origin}/v2/x/blobs/${digest}` } };
}

/** How often a blob was asked for, with which outcomes. */
function told(asks: readonly RequestRecord[]): string {
  return asks.map(({ status }) => status).join(' ');
}

describe('blobs that lie elsewhere', { concurrency: true }, () => {
  test('each hop of a range is logged, a retry with its reason, without any secret', async (t) => {
    const image = await blobsImage(t, BYTES);
    const digest = image.digests[0]!;
    const blob = `/v2/x/blobs/${digest}`;
    const faults: FaultRule[] = [
      // Where a URL is asked for the second time it has expired.
      ...inTurn('/signed/', SHORT, undefined, { status: 500 }),
      ...inTurn(blob, { challenge: { always: true } }),
      { match: { path: blob }, action: { redirect: { expiresAfterRequests: 1 } } },
    ];
    const registry = await startSandbox(t, { layout: image.layout, faults, requireToken: {} });
    const { error, misses, lines } = await copyBlobs(t, image, registry.host);
    assert.equal(error, undefined);
    const storage = /GET (\S+)\/signed/.exec(lines.join('\n'))![1]!;
    assert.deepEqual(misses, [`${storage} answers 500`]);
    const size = image.sizes[0]!;
    const [all, rest] = [`0-${size - 1}`, `20000-${size - 1}`];
    assert.deepEqual(
      lines
        .filter((line) => line.includes(digest))
        .map((line) =>
          line
            .replaceAll(registry.host, 'registry')
            .replaceAll(storage, 'storage')
            .replace(digest, '')
            .replace(/, \d+ ms/, ''),
        ),
      [
        `GET registry/v2/x/blobs/ bytes=${all}: 401, 0 bytes; again, as registry requires a new token`,
        `GET registry/v2/x/blobs/ bytes=${all}: 307, 0 bytes`,
        `GET storage/signed/ bytes=${all}: 206, 20000 bytes`,
        `GET storage/signed/ bytes=${rest}: 403, 0 bytes; again, as the target of a redirect has expired`,
        `GET registry/v2/x/blobs/ bytes=${rest}: 307, 0 bytes`,
        `GET storage/signed/ bytes=${rest}: 500, 0 bytes; again, as storage answers 500`,
        `GET registry/v2/x/blobs/ bytes=${rest}: 307, 0 bytes`,
        `GET storage/signed/ bytes=${rest}: 206, ${size - 20_000} bytes`,
      ],
    );
  });

  test('a storage that does not answer is a miss, and the registry names another', async (t) => {
    const image = await blobsImage(t, BYTES);
    const { layout } = image;
    const digest = image.digests[0]!;
    const dying = await startSandbox(t, {
      layout,
      faults: inTurn(digest, SHORT),
      onRequest: () => void dying.close(),
    });
    const living = await startSandbox(t, { layout });
    const faults = inTurn(digest, leadTo(dying.origin, digest), leadTo(living.origin, digest));
    const registry = await startSandbox(t, { layout, faults });
    const { error, misses } = await copyBlobs(t, image, registry.host);
    assert.equal(error, undefined);
    assert.equal(misses.length, 1);
    assert.match(misses[0]!, new RegExp(`^${dying.host} (refuses|broke off) the connection$`));
    const asks = [registry, dying, living].map((each) => told(asksFor(each, digest)));
    assert.deepEqual(asks, ['307 307', '206', '206']);
  });

  test('a redirect back to the registry carries no token, and more storage hosts than are kept connected may serve a blob', async (t) => {
    const hosts = Array.from({ length: 20 }, (_, i) => `127.0.0.${i + 1}`);
    const image = await blobsImage(t, ...hosts.map((_, i) => 1000 + i), BYTES);
    const { layout } = image;
    const storage = await startSandbox(t, { layout, host: '0.0.0.0', names: hosts });
    const port = storage.host.split(':')[1];
    const spread = hosts.flatMap((host, i) =>
      inTurn(image.digests[i]!, leadTo(`http://${host}:${port}`, image.digests[i]!)),
    );
    const digest = image.digests.at(-1)!;
    const [there, back] = [{ Location: '' }, { Location: '' }];
    const ways = inTurn(digest, { status: 307, headers: there }, { status: 302, headers: back });
    const registry = await startSandbox(t, { layout, requireToken: {}, faults: [...spread, ...ways] });
    // The same server by another name is another origin.
    there.Location = `${registry.origin.replace('127.0.0.1', '0.0.0.0')}/v2/x/blobs/${digest}`;
    back.Location = `${registry.origin}/v2/x/blobs/${digest}`;
    const { error, misses } = await copyBlobs(t, image, registry.host, { connections: 2 });
    assert.deepEqual([error, misses], [undefined, []]);
    assert.equal(told(asksFor(registry, digest)), '307 302 401 206');
    for (const one of image.digests.slice(0, -1)) assert.equal(told(asksFor(storage, one)), '206');
  });

  test('ranges of a later blob do not wait for its first, once the registry has served one itself', async (t) => {
    const image = await blobsImage(t, 1000, 2000, 3 * 2 ** 20);
    const large = image.digests[2]!;
    const stop = new AbortController();
    let waited: boolean | undefined;
    const registry = await startSandbox(t, {
      layout: image.layout,
      faults: inTurn(large, { firstByteAfterMs: 50_000 }),
      onRequest: ({ path, status }) => {
        if (!path.endsWith(large) || status !== 206) return;
        waited ??= asksFor(registry, large)[0]!.status !== 0;
        stop.abort();
      },
    });
    // The large one comes after the others.
    await copyBlobs(t, image, registry.host, { connections: 2, signal: stop.signal });
    assert.equal(waited, false);
  });

  test('ranges that wait for a new signed URL continue when the request for it fails, and when the registry serves the blob itself', {
    timeout: 30_000,
  }, async (t) => {
    // Ten ranges, which two threads fetch.
    const image = await blobsImage(t, 10 * 2 ** 20);
    const digest = image.digests[0]!;
    const faults = inTurn(
      `/v2/x/blobs/${digest}`,
      { redirect: { expiresAfterRequests: 4 } },
      { status: 500 },
    );
    const registry = await startSandbox(t, { layout: image.layout, faults });
    const { error, misses } = await copyBlobs(t, image, registry.host, { connections: 4, workers: 2 });
    assert.deepEqual([error, misses], [undefined, [`${registry.host} answers 500`]]);
    const asks = asksFor(registry, digest);
    const count = (wanted: number) => asks.filter(({ status }) => status === wanted).length;
    assert.deepEqual([count(307), count(500)], [1, 1]);
    const kept = asks.filter(({ path, status }) => path.startsWith('/v2/') && status === 206);
    assert.ok(new Set(kept.map(({ connection }) => connection)).size <= 4);
    assert.ok(count(403) >= 1 && count(403) <= 4, `${count(403)} refused`);
  });
});
