/** Manifests, indexes and configs that lie. */
import type { FaultRule } from '../../../src/sandbox/faults.js';
import {
  addBlob,
  addJson,
  addLayer,
  type ConfigJson,
  changeImage,
  type DescriptorJson,
  type ManifestJson,
  nameDocument,
  nameImage,
  OCI_INDEX,
  OCI_MANIFEST,
  readConfig,
  readManifest,
} from '../layout.js';
import { answer, diffIdOf, type ImageRow, sampleLayer, tarFor } from './row.js';

const CONFIG_TYPE = 'application/vnd.oci.image.config.v1+json';
const DIGEST = `sha256:${'ab'.repeat(32)}`;

/** An honest image under this tag. */
async function honest(layout: string, ref: string): Promise<{ manifest: ManifestJson; config: ConfigJson }> {
  const { layer, diffId } = await sampleLayer(layout, tarFor(ref), 'zstd:chunked');
  nameImage(layout, ref, [layer], [diffId]);
  const manifest = readManifest(layout, ref);
  return { manifest, config: readConfig(layout, manifest) };
}

/** The registry answers with this text for the tag, whatever it is. */
function sent(ref: string, text: string, mediaType = OCI_MANIFEST): readonly FaultRule[] {
  return [answer(`/${ref}/manifests/`, 200, { 'Content-Type': mediaType }, text)];
}

/** A row whose manifest is the honest one as text, changed. */
function text(name: string, exit: number, change: (json: string) => string): ImageRow {
  return {
    name,
    exit,
    write: async (layout, ref) => {
      const { manifest } = await honest(layout, ref);
      return sent(ref, change(JSON.stringify(manifest)));
    },
  };
}

/** A row whose manifest or config differs in a field. */
function changed(
  name: string,
  exit: number,
  change: (manifest: ManifestJson, config: ConfigJson) => void,
): ImageRow {
  return {
    name,
    exit,
    write: async (layout, ref) => {
      await honest(layout, ref);
      changeImage(layout, ref, change);
      return [];
    },
  };
}

/** A row whose config is this document. */
function configured(name: string, exit: number, config: (good: ConfigJson) => string): ImageRow {
  return {
    name,
    exit,
    write: async (layout, ref) => {
      const { manifest, config: good } = await honest(layout, ref);
      const bytes = Buffer.from(config(good));
      const descriptor = { ...manifest.config, digest: addBlob(layout, bytes), size: bytes.length };
      nameDocument(layout, ref, OCI_MANIFEST, { ...manifest, config: descriptor });
      return [];
    },
  };
}

const layerSize = (size: string) => (json: string) => json.replace(/("layers":.*?"size":)\d+/, `$1${size}`);
const layerDigest = (digest: string) => (json: string) =>
  json.replace(/("layers":.*?"digest":")[^"]+/, `$1${digest}`);

/** Indexes in indexes, this many, and then the honest manifest. */
async function nestedIndexes(layout: string, ref: string, levels: number): Promise<readonly FaultRule[]> {
  const { manifest } = await honest(layout, ref);
  let inner: DescriptorJson = addJson(layout, OCI_MANIFEST, manifest);
  for (let level = 0; level < levels; level++) {
    const entry = { ...inner, platform: { os: 'linux', architecture: 'amd64' } };
    inner = nameDocument(layout, ref, OCI_INDEX, {
      schemaVersion: 2,
      mediaType: OCI_INDEX,
      manifests: [entry],
    });
  }
  return [];
}

function index(name: string, exit: number, entries: (entry: DescriptorJson) => readonly unknown[]): ImageRow {
  return {
    name,
    exit,
    write: async (layout, ref) => {
      const { manifest } = await honest(layout, ref);
      const entry = addJson(layout, OCI_MANIFEST, manifest);
      nameDocument(layout, ref, OCI_INDEX, {
        schemaVersion: 2,
        mediaType: OCI_INDEX,
        manifests: entries(entry),
      });
      return [];
    },
  };
}

export const DOCUMENT_ROWS: readonly ImageRow[] = [
  text('a manifest with two lists of layers', 6, (json) => json.replace(/}$/, ',"layers":[]}')),
  text('a manifest with Layers beside layers', 6, (json) => json.replace(/}$/, ',"Layers":[]}')),
  text('a layer with Digest beside digest', 6, (json) =>
    json.replace(/("layers":\[{)/, `$1"Digest":"${DIGEST}",`),
  ),
  text('a manifest with manifests beside layers', 6, (json) => json.replace(/}$/, ',"manifests":[]}')),
  text('a manifest of schemaVersion 99', 6, (json) =>
    json.replace('"schemaVersion":2', '"schemaVersion":99'),
  ),
  text('a manifest of schemaVersion 1', 6, (json) => json.replace('"schemaVersion":2', '"schemaVersion":1')),
  text('a manifest that is an index by its type', 6, (json) => json.replace(OCI_MANIFEST, OCI_INDEX)),
  text('a manifest that is a picture', 8, (json) => json.replace(OCI_MANIFEST, 'image/png')),
  text('a manifest that is no JSON', 6, () => 'no manifest'),
  text('a manifest with bytes behind it', 6, (json) => `${json}{}`),
  text('a manifest with a byte order mark', 6, (json) => `\ufeff${json}`),
  text('a manifest that is nested 200,000 deep', 6, (json) =>
    json.replace(/}$/, `,"x":${'['.repeat(200_000)}${']'.repeat(200_000)}}`),
  ),
  text('a manifest of 5 MiB', 6, (json) => json.replace(/}$/, `,"x":"${'x'.repeat(5 * 2 ** 20)}"}`)),
  text('a manifest with half a million keys', 6, (json) =>
    json.replace(/}$/, `,${Array.from({ length: 500_000 }, (_, at) => `"${at.toString(36)}":0`).join(',')}}`),
  ),
  text('a layer of size -1', 6, layerSize('-1')),
  text('a layer of size 1.5', 6, layerSize('1.5')),
  text('a layer of size 1e3', 6, layerSize('1e3')),
  text('a layer of size 2^53', 6, layerSize('9007199254740992')),
  text('a layer of size 2^52', 6, layerSize('4503599627370496')),
  text('a layer of a size in quotes', 6, layerSize('"5"')),
  changed('a layer that is one byte shorter than stated', 6, ({ layers }) => {
    layers[0]!.size += 1;
  }),
  text('a digest in upper case', 6, layerDigest(`sha256:${'AB'.repeat(32)}`)),
  text('a digest that is a path', 6, layerDigest(`sha256:../../../../etc/passwd`)),
  text('a digest of another algorithm', 8, layerDigest(`sha512:${'ab'.repeat(64)}`)),
  text('a digest of md5', 6, layerDigest(`md5:${'ab'.repeat(16)}`)),
  changed('a layer that is a web page by its type', 8, ({ layers }) => {
    layers[0]!.mediaType = 'text/html';
  }),
  changed('an image whose config is that of another thing', 8, ({ config }) => {
    config.mediaType = 'application/vnd.example+json';
  }),
  changed('1001 layers', 6, ({ layers }, { rootfs }) => {
    for (let at = 1; at < 1001; at++) {
      layers.push(layers[0]!);
      rootfs.diff_ids.push(rootfs.diff_ids[0]!);
    }
  }),
  changed('one layer 900 times, which is pulled once', 0, ({ layers }, { rootfs }) => {
    for (let at = 1; at < 900; at++) {
      layers.push(layers[0]!);
      rootfs.diff_ids.push(rootfs.diff_ids[0]!);
    }
  }),
  changed('no layers', 0, (manifest, { rootfs }) => {
    manifest.layers = [];
    rootfs.diff_ids = [];
  }),
  {
    name: 'another manifest than the one that was asked for by its digest',
    exit: 6,
    suffix: `@${DIGEST}`,
    write: async (layout, ref) => sent(ref, JSON.stringify((await honest(layout, ref)).manifest)),
  },
  {
    name: 'a blob in place of a gzip layer, under a right digest',
    exit: 6,
    write: (layout, ref) => {
      const bytes = Buffer.from('no gzip');
      const layer = {
        mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
        digest: addBlob(layout, bytes),
        size: bytes.length,
      };
      nameImage(layout, ref, [layer], [diffIdOf(bytes)]);
      return [];
    },
  },
  { name: 'indexes nested too deeply', exit: 8, write: (layout, ref) => nestedIndexes(layout, ref, 12) },
  index('an index of 5000 entries', 6, (entry) => Array<unknown>(5000).fill(entry)),
  index('an index without any entry', 3, () => []),
  index('an index whose platform has 3 MB of text', 6, (entry) => [
    { ...entry, platform: { os: 'x'.repeat(1_500_000), architecture: 'y'.repeat(1_500_000) } },
  ]),
  index('an index whose entry has no digest', 6, ({ mediaType, size }) => [{ mediaType, size }]),
  configured('a config with another DiffID', 6, (good) =>
    JSON.stringify({ ...good, rootfs: { type: 'layers', diff_ids: [DIGEST] } }),
  ),
  configured('a config with too few DiffIDs', 6, (good) =>
    JSON.stringify({ ...good, rootfs: { type: 'layers', diff_ids: [] } }),
  ),
  configured('a config with too many DiffIDs', 6, (good) =>
    JSON.stringify({ ...good, rootfs: { type: 'layers', diff_ids: [...good.rootfs.diff_ids, DIGEST] } }),
  ),
  configured('a config with two lists of DiffIDs', 6, (good) =>
    JSON.stringify(good).replace('"rootfs":{', `"rootfs":{"diff_ids":["${DIGEST}"],`),
  ),
  configured('a config that is nested 200,000 deep', 6, (good) =>
    JSON.stringify(good).replace(/}$/, `,"x":${'['.repeat(200_000)}${']'.repeat(200_000)}}`),
  ),
  configured('a config that is a list', 6, () => '[]'),
  configured('a config whose layers are of another type', 6, (good) =>
    JSON.stringify({ ...good, rootfs: { ...good.rootfs, type: 'unpacked' } }),
  ),
  configured('a config for a platform that is a number', 6, (good) => JSON.stringify({ ...good, os: 5 })),
  configured('a config of 5 MiB', 6, (good) => JSON.stringify({ ...good, x: 'x'.repeat(5 * 2 ** 20) })),
  {
    name: 'a config that is a layer',
    exit: 6,
    write: async (layout, ref) => {
      const { manifest } = await honest(layout, ref);
      const { digest, size } = await addLayer(layout, tarFor(ref), '');
      const config = { mediaType: CONFIG_TYPE, digest, size };
      nameDocument(layout, ref, OCI_MANIFEST, { ...manifest, config });
      return [];
    },
  },
];
