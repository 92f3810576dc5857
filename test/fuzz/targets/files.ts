/** Files beside us: the user's configuration, and the store. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { noteRange, RangeJournal } from '../../../src/copy/range-journal.js';
import { type Digest, digestBytes, parseDigest } from '../../../src/format/digest.js';
import { parseReference } from '../../../src/format/reference.js';
import { createLocalSession } from '../../../src/pull/oci-layout.js';
import { offersOf, parseAuthFile } from '../../../src/registry/auth-file.js';
import { endpointsOf, expandShortName, readRegistries } from '../../../src/registry/registries-conf.js';
import { checkPolicy } from '../../../src/registry/signature-policy.js';
import { networkEnvironment, proxyFor } from '../../../src/registry/transport.js';
import { openLayout } from '../../../src/sandbox/layout-reader.js';
import { ExtentList, overlapsRun } from '../../../src/store/extents.js';
import { type ImageRecord, readImageRecord } from '../../../src/store/image-record.js';
import { decodeLayerRecord, encodeLayerRecord } from '../../../src/store/layer-record.js';
import { markBad, readBadRuns } from '../../../src/store/pack-files.js';
import {
  encodeContent,
  encodePiece,
  pieceOf,
  RECORD_BYTES,
  RECORD_TYPES,
  scanIndex,
} from '../../../src/store/pack-index.js';
import { badRunsPath, imageRecordPath, openStore, type PackId } from '../../../src/store/paths.js';
import { mutatedJson } from '../json.js';
import { mutated, mutatedText } from '../mutate.js';
import { scratchDirectory } from '../scratch.js';
import { type Target, target, tolerate, tolerateAsync } from '../target.js';

const directory = scratchDirectory('files');
const store = openStore(join(directory, 'store'));
const DIGEST = parseDigest(`sha256:${'0123456789abcdef'.repeat(4)}`, 'it');
const REFERENCE = parseReference('registry.example/team/app:1.0');

const AUTHS = [
  {
    auths: {
      'registry.example': { auth: 'dXNlcjpwYXNz', email: 'a@b' },
      'registry.example/team': { username: 'u', password: 'p' },
      'https://index.docker.io/v1/': { identitytoken: 'x' },
    },
    credHelpers: { 'other.example': 'helper' },
    credsStore: 'store',
  },
];

/** No reference has a longer one. */
const MAX_REPOSITORY_LENGTH = 255;

const authFile = target(
  'auth-file',
  fc.tuple(
    mutatedJson(AUTHS, ['registry.example', 'auth', 'docker.io', '../x', 'OjpwYXNz']),
    mutatedText(['team/app', 'a/b/c']).map((text) => text.slice(0, MAX_REPOSITORY_LENGTH)),
  ),
  ([bytes, repository]) => {
    const file = tolerate(() => parseAuthFile(bytes.toString(), 'auth.json'), 'option-malformed');
    if (file === undefined) return;
    for (const host of ['registry.example', 'docker.io', 'other.example', '__proto__']) {
      const offers = tolerate(() => [...offersOf(file, host, repository)], 'option-malformed') ?? [];
      for (const offer of offers) if (offer.kind === 'helper') assert.match(offer.name, /^[\w.-]+$/);
    }
  },
);

const CONF = `unqualified-search-registries = ["registry.example"]
[aliases]
"short" = "registry.example/team/long"
[[registry]]
prefix = "registry.example/team"
location = "mirror.example:5000/cache"
insecure = true
mirror-by-digest-only = false
[[registry.mirror]]
location = "other.example/x"
pull-from-mirror = "tag-only"
[[registry]]
prefix = "*.example"
blocked = true
`;
const CONF_WORDS = [
  '[[registry]]\n',
  'blocked = true\n',
  '"""',
  "'''",
  '[a',
  '= {',
  '= [',
  '1979-05-27',
  'inf',
  'location = "',
  '*.',
  '__proto__ = 1\n',
];
const CONF_FILE = join(directory, 'registries.conf');

const registries = target('registries-conf', mutated([CONF, 'a = 1\n'], CONF_WORDS), async (bytes) => {
  writeFileSync(CONF_FILE, bytes);
  const env = { CONTAINERS_REGISTRIES_CONF: CONF_FILE };
  const read = await tolerateAsync(() => readRegistries(env), 'option-malformed');
  if (read === undefined) return;
  for (const name of ['short', 'alpine', '__proto__', 'constructor']) {
    tolerate(
      () => parseReference(name, (short) => expandShortName(short, read)),
      'reference-malformed',
      'unsupported',
    );
  }
  for (const name of ['registry.example/team/app', 'sub.example/x', 'alpine']) {
    const endpoints = tolerate(
      () => endpointsOf(parseReference(name), read),
      'registry-blocked',
      'option-malformed',
    );
    for (const { host, repository } of endpoints ?? []) {
      assert.ok(URL.canParse(`https://${host}/v2/${repository}/`), `${host} ${repository}`);
    }
  }
});

const POLICIES = [
  {
    default: [{ type: 'reject' }],
    transports: {
      docker: {
        'registry.example': [{ type: 'signedBy', keyType: 'GPGKeys', keyPath: '/x' }],
        '*.example': [{ type: 'sigstoreSigned' }],
        '': [{ type: 'insecureAcceptAnything' }],
      },
    },
  },
];
const POLICY_HOME = join(directory, 'home');
const POLICY_FILE = join(POLICY_HOME, '.config/containers/policy.json');
mkdirSync(dirname(POLICY_FILE), { recursive: true });

const policy = target(
  'policy',
  mutatedJson(POLICIES, ['reject', 'insecureAcceptAnything', 'registry.example/team']),
  (bytes) => {
    writeFileSync(POLICY_FILE, bytes);
    const options = { env: { HOME: POLICY_HOME }, insecurePolicy: false };
    tolerate(() => checkPolicy(REFERENCE, options), 'policy-rejected', 'unsupported', 'option-malformed');
  },
);

const PROXIES = ['http://u:p%3A@proxy.example:3128', 'proxy:8080', 'https://[::1]:1', 'socks5://x'];
const EXCEPTIONS = [
  'localhost,.example,*.corp,10.0.0.0/8,fe80::/10,[::1]:5000,host:443',
  'fe80::1,192.168.1.1:80, *,',
];

const proxy = target(
  'proxy',
  fc.tuple(
    mutatedText(PROXIES, ['@', '%', '://']),
    mutatedText(EXCEPTIONS, [',', '/', '%eth0', '::', '/129', ':0', '[', '10.']),
    fc.constantFrom(
      'https://registry.example/',
      'http://10.1.2.3:80/',
      'https://[fe80::2]:5000/',
      'https://localhost/',
    ),
  ),
  ([value, except, url]) => {
    const environment = networkEnvironment({ HTTPS_PROXY: value, http_proxy: value, NO_PROXY: except });
    const found = tolerate(() => proxyFor(new URL(url), environment), 'option-malformed');
    if (found !== undefined) assert.match(found.origin, /^https?:\/\/[^/]+$/);
  },
);

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest();

const EXTENTS = new ExtentList();
for (const [row, id] of ['00', 'ff', '00'].entries()) EXTENTS.push(id.repeat(16) as PackId, row * 5000, 4096);
const LAYER_RECORD = encodeLayerRecord({ diffId: DIGEST, extents: EXTENTS });

const layerRecord = target(
  'layer-record',
  fc.tuple(mutated([LAYER_RECORD], ['zplayer\x01']), fc.boolean()),
  ([bytes, isSealed]) => {
    const end = Math.max(0, bytes.length - 32);
    const given = isSealed ? Buffer.concat([bytes.subarray(0, end), sha256(bytes.subarray(0, end))]) : bytes;
    const record = decodeLayerRecord(given, DIGEST);
    if (record === undefined) return;
    assert.ok(Number.isSafeInteger(record.extents.lengthBytes));
    const again = decodeLayerRecord(encodeLayerRecord(record), DIGEST);
    assert.deepEqual(again?.extents.toRows(), record.extents.toRows());
  },
);

const PIECE = {
  raw: false,
  blobDigest: digestBytes(DIGEST),
  packOffset: 4096,
  lengthBytes: 1000,
  blobStart: 10,
  blobLength: 99,
  tarStart: 512,
  crc32: 0x12345678,
};
const INDEX = Buffer.alloc(3 * RECORD_BYTES);
encodePiece(INDEX, 0, PIECE);
encodeContent(INDEX, RECORD_BYTES, digestBytes(DIGEST), 0, 4096, 1000);
encodePiece(INDEX, 2 * RECORD_BYTES, { ...PIECE, raw: true, lengthBytes: 99, tarStart: 0 });

const packIndex = target('pack-index', fc.tuple(mutated([INDEX]), fc.boolean()), ([bytes, isSealed]) => {
  const index = Buffer.from(bytes);
  for (let at = 0; isSealed && at + RECORD_BYTES <= index.length; at += RECORD_BYTES) {
    index.writeUInt32LE(crc32(index.subarray(at + 4, at + RECORD_BYTES)), at);
  }
  scanIndex(
    index,
    () => true,
    (type, at) => {
      const piece = pieceOf(index, at);
      assert.ok(piece.lengthBytes > 0 && Number.isSafeInteger(piece.packOffset + piece.lengthBytes));
      if (type === RECORD_TYPES.content) return;
      const again = Buffer.alloc(RECORD_BYTES);
      encodePiece(again, 0, piece);
      assert.ok(again.equals(index.subarray(at, at + RECORD_BYTES)));
    },
  );
});

const RECORD: ImageRecord & { version: number } = {
  version: 1,
  reference: 'registry.example/team/app:1.0',
  platform: 'linux/amd64',
  manifestDigest: DIGEST,
  manifestMediaType: 'application/vnd.oci.image.manifest.v1+json',
  configDigest: DIGEST,
  diffIds: [DIGEST],
  layers: [{ digest: DIGEST, mediaType: 'x/y', sizeBytes: 5 }],
  createdMs: 1,
  lastUsedMs: 2,
};
const RECORD_FILE = imageRecordPath(store, RECORD.reference, RECORD.platform);

const imageRecord = target('image-record', mutatedJson([RECORD], ['version', DIGEST]), (bytes) => {
  writeFileSync(RECORD_FILE, bytes);
  const record = readImageRecord(store, RECORD.reference, RECORD.platform);
  if (record === undefined) return;
  assert.deepEqual([record.reference, record.platform], [RECORD.reference, RECORD.platform]);
  assert.equal(record.diffIds.length, record.layers.length);
});

const JOURNAL = new RangeJournal(join(directory, 'journal'), 'key', process.geteuid?.() ?? 0);

const journal = target(
  'range-journal',
  mutated(['key\n0 100\n100 2000\n', 'key\n5 9\n7 '], ['key\n', ' ', '\n']),
  (bytes) => {
    writeFileSync(JOURNAL.path, bytes);
    const before = JOURNAL.read();
    for (const { start, end } of before) assert.ok(0 <= start && start < end && Number.isSafeInteger(end));
    noteRange(JOURNAL.find()!, { start: 3, end: 4 });
    const after = JOURNAL.read();
    // A line that a crash cut off takes the next one along.
    assert.ok(after.length <= before.length + 1);
  },
);

const PACK = '0'.repeat(32) as PackId;

const badRuns = target(
  'bad-runs',
  mutated([Buffer.alloc(32), Buffer.from('0500000000000000'.repeat(4), 'hex')]),
  (bytes) => {
    const path = badRunsPath(store, PACK);
    writeFileSync(path, bytes);
    const bad = readBadRuns(store, PACK);
    assert.ok(bad.every((at, row) => row === 0 || bad[row - 1]! < at));
    overlapsRun(bad, 0, 1);
    markBad(store, PACK, [{ offset: 7, lengthBytes: 3 }]);
    assert.ok(overlapsRun(readBadRuns(store, PACK), 8, 9));
  },
);

const LAYOUT = join(directory, 'layout');
mkdirSync(join(LAYOUT, 'blobs/sha256'), { recursive: true });
const MANIFEST_BLOB = join(LAYOUT, 'blobs/sha256', DIGEST.slice('sha256:'.length));

const LAYOUT_FILES = [
  {
    schemaVersion: 2,
    manifests: [{ digest: DIGEST, annotations: { 'org.opencontainers.image.ref.name': 'tag' } }],
  },
  { schemaVersion: 2, mediaType: 'application/vnd.oci.image.manifest.v1+json', config: {}, layers: [] },
];

const LAYOUT_REFUSALS = [
  'metadata-malformed',
  'reference-malformed',
  'image-not-found',
  'blob-not-found',
  'digest-mismatch',
] as const;

const layout = target(
  'layout',
  fc.tuple(mutatedJson(LAYOUT_FILES), mutatedJson(LAYOUT_FILES, ['mediaType'])),
  async ([index, manifest]) => {
    writeFileSync(join(LAYOUT, 'index.json'), index);
    writeFileSync(MANIFEST_BLOB, manifest);
    for (const name of ['', 'tag', DIGEST]) {
      const session = createLocalSession({ transport: 'oci', path: LAYOUT });
      await tolerateAsync(() => session.getManifest(name), ...LAYOUT_REFUSALS);
    }
    const reader = tolerate(() => openLayout(LAYOUT), 'metadata-malformed', 'option-malformed');
    if (reader === undefined) return;
    for (const reference of [...reader.tags().slice(0, 3), DIGEST as Digest]) {
      const found = reader.manifest(reference);
      if (found !== undefined) assert.match(found.mediaType, /^[\w.+-]+\/[\w.+-]+$/);
    }
  },
);

export const FILE_TARGETS: readonly Target[] = [
  authFile,
  registries,
  policy,
  proxy,
  layerRecord,
  packIndex,
  imageRecord,
  journal,
  badRuns,
  layout,
];
