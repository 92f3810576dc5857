import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { type Digest, parseDigest } from '../../../src/format/digest.js';
import { ERROR_CODES, type ErrorCode, PullError } from '../../../src/format/error.js';
import { layerKind } from '../../../src/format/layer-format.js';
import type { Descriptor } from '../../../src/format/manifest.js';
import {
  type ImageLayer,
  imageLayers,
  type MissingLayer,
  missingLayers,
  pullMissing,
  warnOfFallback,
} from '../../../src/pull/layer.js';
import { Stop } from '../../../src/pull/pull-context.js';
import { LayerLocks } from '../../../src/store/layer-locks.js';
import { Lease } from '../../../src/store/leases.js';
import { storePaths } from '../../../src/store/paths.js';
import { fakeContext, fakeLayer, fakePool } from '../../support/fake-context.js';
import { failureOf } from '../../support/pull.js';
import { temporaryDirectory } from '../../support/temporary.js';
import { digestOf, freshStore } from '../store/support.js';

/** What chunked metadata can be guilty of. */
const GUILTY: readonly ErrorCode[] = ['metadata-malformed', 'digest-mismatch', 'unsupported'];

/** Whether this failure lets a layer be pulled as a whole, and what the user is told. */
function fallBack(error: unknown) {
  const { context, events } = fakeContext({ support: fakePool(() => Promise.reject(new Error('unused'))) });
  return { may: warnOfFallback(context, fakeLayer(), error), events };
}

test('after an error that bad metadata can cause, the layer is pulled as an opaque one, with one warning', () => {
  for (const code of GUILTY) {
    const { may, events } = fallBack(new PullError(code, 'the TOC is bad'));
    assert.equal(may, true, code);
    const message = `layer ${fakeLayer().blob.digest}: the TOC is bad; pulling the full layer instead`;
    assert.deepEqual(events, [{ event: 'warning', message }]);
  }
});

test('after an error that would occur again it is not, and there is no warning', () => {
  const codes = ERROR_CODES.filter((code) => !GUILTY.includes(code));
  assert.ok(codes.length > 5);
  for (const error of [...codes.map((code) => new PullError(code, 'no')), new Error('no'), 'no', undefined]) {
    const { may, events } = fallBack(error);
    assert.deepEqual([may, events], [false, []]);
  }
});

const FIGURES = {
  format: 'tar' as const,
  tarBytes: 1,
  metadataBytes: 0,
  fetchedBytes: 1,
  reusedBytes: 0,
  resumedBytes: 0,
  requests: 1,
};

/** A store in which layers appear when they are pulled or when `have` says so, and another process with locks of its own. */
function scene(t: TestContext, names: readonly string[]) {
  const paths = freshStore(t);
  const leases = [new Lease(paths, 'pull'), new Lease(paths, 'pull')] as const;
  t.after(() => {
    for (const lease of leases) lease.close();
  });
  const [locks, others] = leases.map((lease) => new LayerLocks(paths, lease)) as [LayerLocks, LayerLocks];
  const held = new Set<Digest>();
  const pulled: string[][] = [];
  const diffIds = new Map(names.map((name) => [digestOf(name), name]));
  const stop = new Stop();
  const run = (more: { keep?: boolean; onWait?: (layers: number) => void } = {}) =>
    pullMissing({
      locks,
      stop,
      missing: async () =>
        [...diffIds.keys()]
          .filter((diffId) => !held.has(diffId))
          .map((diffId): MissingLayer => ({ ...fakeLayer(), diffId })),
      pull: async (layers) => {
        pulled.push(layers.map(({ diffId }) => diffIds.get(diffId)!));
        if (more.keep !== false) for (const { diffId } of layers) held.add(diffId);
        return layers.map(() => FIGURES);
      },
      onTurn: () => {},
      onWait: more.onWait ?? (() => assert.fail('nothing to wait for')),
    });
  return { run, others, locks, pulled, held, stop };
}

test('layers that are not locked are pulled at once, and no lock stays', async (t) => {
  const { run, others, pulled } = scene(t, ['a', 'b']);
  const figures = await run();
  assert.deepEqual([pulled, figures.size], [[['a', 'b']], 2]);
  assert.deepEqual([others.tryLock(digestOf('a')), others.tryLock(digestOf('b'))], [true, true]);
});

test('layers that another process pulls come last, and are used when they are stored', async (t) => {
  const { run, others, pulled, held } = scene(t, ['a', 'b', 'c']);
  others.tryLock(digestOf('b'));
  const figures = await run({
    onWait: (layers) => {
      assert.deepEqual([layers, pulled], [1, [['a', 'c']]]);
      held.add(digestOf('b'));
      others.releaseAll();
    },
  });
  assert.deepEqual([pulled, figures.size], [[['a', 'c']], 2]);
});

test('layers that another process gave up are pulled here', async (t) => {
  const { run, others, pulled } = scene(t, ['a', 'b']);
  for (const name of ['a', 'b']) others.tryLock(digestOf(name));
  const left = ['b', 'a'];
  await run({ onWait: () => others.release(digestOf(left.shift()!)) });
  assert.deepEqual(pulled, [['b'], ['a']]);
});

test('a layer that is deleted again and again is pulled twice and no more', async (t) => {
  const { run, pulled } = scene(t, ['a']);
  await run({ keep: false });
  assert.deepEqual(pulled, [['a'], ['a']]);
});

test('a stop ends the wait', async (t) => {
  const { run, others, pulled, stop } = scene(t, ['a']);
  others.tryLock(digestOf('a'));
  const reason = new PullError('interrupted', 'stopped');
  assert.equal(await failureOf(run({ onWait: () => setTimeout(() => stop.now(reason)) })), reason);
  assert.deepEqual(pulled, []);
});

test('a layer that another process published just before its lock was ours is not pulled', async (t) => {
  const { run, locks, pulled, held } = scene(t, ['a']);
  t.mock.method(locks, 'tryLock', (diffId: Digest) => {
    held.add(diffId);
    return true;
  });
  const figures = await run();
  assert.deepEqual([pulled, figures.size], [[], 0]);
});

const GZIP = 'application/vnd.oci.image.layer.v1.tar+gzip';
const FOREIGN = 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip';

function numberedDigest(name: number): Digest {
  return parseDigest(`sha256:${String(name).padStart(64, '0')}`, 'digest');
}

function layerOf(name: number, more: Partial<Descriptor> & { cachedTarBytes?: number } = {}): ImageLayer {
  const { cachedTarBytes, ...own } = more;
  const descriptor = { mediaType: GZIP, digest: numberedDigest(name), sizeBytes: 1000 + name, ...own };
  return { descriptor, diffId: numberedDigest(name + 100), kind: layerKind(descriptor), cachedTarBytes };
}

function want(layers: readonly ImageLayer[], allowForeign = false) {
  const warnings: string[] = [];
  const registry = { blobUrl: (digest: string) => `https://registry/${digest}` };
  const warn = (message: string) => warnings.push(message);
  return { wanted: missingLayers(layers, { registry, allowForeign, warn }), warnings };
}

test('a layer is requested from the registry as its descriptor states it', () => {
  const { wanted, warnings } = want([layerOf(1)]);
  assert.deepEqual(wanted, [
    {
      blob: { url: `https://registry/${numberedDigest(1)}`, digest: numberedDigest(1), sizeBytes: 1001 },
      diffId: numberedDigest(101),
      format: 'gzip',
      mediaType: GZIP,
      compression: 'gzip',
      otherUrls: [],
    },
  ]);
  assert.deepEqual(warnings, []);
});

test('a stored layer is not missing, nor is a DiffID twice, in any compression', () => {
  const twin = { ...layerOf(3), diffId: layerOf(2).diffId };
  const { wanted } = want([layerOf(1, { cachedTarBytes: 5000 }), layerOf(2), twin, layerOf(4)]);
  assert.deepEqual(
    wanted.map(({ blob }) => blob.digest),
    [numberedDigest(2), numberedDigest(4)],
  );
});

test('a stored layer of no bytes is not missing either', () => {
  assert.deepEqual(want([layerOf(1, { cachedTarBytes: 0 })]).wanted, []);
});

test('where metadata may be goes with the layer', () => {
  const annotations = { 'containerd.io/snapshot/stargz/toc.digest': numberedDigest(9) };
  const [layer] = want([layerOf(1, { annotations })]).wanted;
  assert.equal(layer?.format, 'estargz');
  assert.deepEqual(layer?.location, { by: 'footer', compression: 'gzip', tocDigest: numberedDigest(9) });
});

test('malformed annotations cause a warning, and the layer is opaque', () => {
  const annotations = { 'containerd.io/snapshot/stargz/toc.digest': 'nonsense' };
  const { wanted, warnings } = want([layerOf(1, { annotations })]);
  assert.deepEqual([wanted[0]?.format, wanted[0]?.location], ['gzip', undefined]);
  assert.equal(warnings.length, 1);
  assert.match(
    warnings[0]!,
    new RegExp(`^layer ${numberedDigest(1)}: .*toc\\.digest.*; pulling the full layer instead$`),
  );
});

test('a foreign layer is not pulled unless that is allowed, and the error names the host alone', () => {
  const urls = [
    'https://user:secret@cdn.example/path?token=secret',
    'https://cdn.example/2',
    'not an address',
  ];
  assert.throws(
    () => want([layerOf(1, { mediaType: FOREIGN, urls })]),
    (error: Error & Record<string, unknown>) => {
      assert.equal(error['code'], 'unsupported');
      assert.equal(error['layer'], numberedDigest(1));
      assert.match(error.message, /is not in the registry but at cdn\.example, no valid address$/);
      assert.match(String(error['hint']), /--allow-foreign/);
      assert.doesNotMatch(`${error.message} ${String(error['hint'])}`, /secret|path/);
      return true;
    },
  );
});

test('an allowed foreign layer is requested from its URLs in order, anonymously', () => {
  const urls = [
    'ftp://a.example/1',
    'HTTPS://b.example/2',
    'file:///etc/passwd',
    'http://',
    'http://c.example/3',
  ];
  const { wanted } = want([layerOf(1, { mediaType: FOREIGN, urls })], true);
  assert.deepEqual(wanted[0]?.blob, {
    url: 'HTTPS://b.example/2',
    digest: numberedDigest(1),
    sizeBytes: 1001,
    anonymous: true,
  });
  assert.deepEqual(wanted[0]?.otherUrls, ['http://c.example/3']);
});

test('a foreign layer without a usable URL is unsupported, allowed or not', () => {
  const layer = layerOf(1, { mediaType: FOREIGN, urls: ['ftp://a.example/1', 'nothing'] });
  assert.throws(() => want([layer], true), {
    code: 'unsupported',
    message: /has no usable http or https URL$/,
  });
  assert.throws(() => want([layer], false), { code: 'unsupported' });
});

test('a foreign layer without URLs is in the registry like others', () => {
  for (const urls of [undefined, []]) {
    const more = urls === undefined ? {} : { urls };
    const { wanted } = want([layerOf(1, { mediaType: FOREIGN, ...more })]);
    assert.equal(wanted[0]?.blob.url, `https://registry/${numberedDigest(1)}`);
    assert.equal(wanted[0]?.blob.anonymous, undefined);
  }
});

test('a foreign layer that the store has needs no permission', () => {
  const layer = layerOf(1, { mediaType: FOREIGN, urls: ['https://a.example/1'], cachedTarBytes: 10 });
  assert.deepEqual(want([layer]).wanted, []);
});

test('URLs of a layer that is not foreign are not used', () => {
  const { wanted } = want([layerOf(1, { urls: ['https://a.example/1'] })], true);
  assert.equal(wanted[0]?.blob.url, `https://registry/${numberedDigest(1)}`);
  assert.deepEqual(wanted[0]?.otherUrls, []);
});

test('the layers of an image have the DiffIDs of its config, and nothing is in an empty store', (t) => {
  const layers = [1, 2].map((name) => layerOf(name).descriptor);
  const diffIds = [numberedDigest(101), numberedDigest(102)];
  const image = { manifest: { layers }, config: { diffIds } } as unknown as Parameters<typeof imageLayers>[0];
  const found = imageLayers(image, storePaths(temporaryDirectory(t)));
  assert.deepEqual(
    found.map(({ diffId, cachedTarBytes, kind }) => [diffId, cachedTarBytes, kind.format]),
    diffIds.map((diffId) => [diffId, undefined, 'gzip']),
  );
});
