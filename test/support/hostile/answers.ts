/** Answers that no honest registry gives, to requests for an image that is honest. */
import type { FaultAction, FaultRule } from '../../../src/sandbox/faults.js';
import { addLayer, type DescriptorJson, nameImage, readManifest } from '../layout.js';
import { answer, diffIdOf, type ImageRow, type LayerRow, tarFor } from './row.js';

/** The image of a row's answers. */
interface Named {
  readonly ref: string;
  readonly layer: string;
  readonly config: string;
}

/** A row with one gzip layer of its own. */
function answers(name: string, exit: number, faults: (named: Named) => readonly FaultRule[]): ImageRow {
  return {
    name,
    exit,
    write: async (layout, ref) => {
      const tar = tarFor(ref);
      const layer = await addLayer(layout, tar, '+gzip');
      nameImage(layout, ref, [layer], [diffIdOf(tar)]);
      const { config } = readManifest(layout, ref);
      const path = (digest: string) => `/${ref}/blobs/${digest}`;
      return faults({ ref, layer: path(layer.digest), config: path(config.digest) });
    },
  };
}

/** A row whose requests for the layer have this fault. */
function layer(name: string, exit: number, action: FaultAction): ImageRow {
  return answers(name, exit, ({ layer }) => [{ match: { path: layer }, action }]);
}

/** The same for the config. */
function config(name: string, exit: number, action: FaultAction): ImageRow {
  return answers(name, exit, ({ config }) => [{ match: { path: config }, action }]);
}

/** A row whose request for the manifest has this answer. */
function manifest(
  name: string,
  exit: number,
  status: number,
  headers: Readonly<Record<string, string>> = {},
  body = '',
): ImageRow {
  return answers(name, exit, ({ ref }) => [answer(`/${ref}/manifests/`, status, headers, body)]);
}

/** A layer that is pulled in spite of its answers. */
function strange(name: string, action: FaultAction): LayerRow {
  return {
    name,
    warns: false,
    write: async (layout, tar) => {
      const layer: DescriptorJson = await addLayer(layout, tar, '+gzip');
      return { layer, diffId: diffIdOf(tar), faults: [{ match: { path: layer.digest }, action }] };
    },
  };
}

const HTML = { 'Content-Type': 'text/html' };
const MANY_HEADERS = Object.fromEntries(
  Array.from({ length: 1500 }, (_, at) => [`X-Header-${at}`, 'x'.repeat(100)]),
);
const TO_A_FILE = { status: 307, headers: { Location: 'file:///etc/passwd' } };
const LOGIN_PAGE = { status: 200, headers: HTML, body: '<html>log in</html>' };

export const ANSWER_ROWS: readonly ImageRow[] = [
  manifest('a login page in place of the manifest', 5, 200, HTML, '<html>log in</html>'),
  manifest('a 404 with a page of 5 MB', 3, 404, HTML, 'x'.repeat(5_000_000)),
  manifest('a 401 without a challenge', 4, 401),
  manifest('a 401 whose token server is a file', 5, 401, {
    'WWW-Authenticate': 'Bearer realm="file:///etc/passwd"',
  }),
  manifest(
    'a 403 with words that would steer a terminal',
    4,
    403,
    {},
    '{"errors":[{"message":"\\u001b[2Jgone"}]}',
  ),
  manifest('a 418', 5, 418),
  manifest('a 429 that asks to wait for years', 5, 429, { 'Retry-After': '999999999' }),
  manifest('a manifest that is said to be compressed', 6, 200, { 'Content-Encoding': 'gzip' }, 'no gzip'),
  manifest('a manifest behind 150 KB of headers', 5, 200, MANY_HEADERS, '{}'),
  manifest('a redirect of the manifest to a file', 5, 307, TO_A_FILE.headers),
  manifest('a redirect of the manifest to nowhere', 5, 307),
  answers('a redirect of the manifest to itself', 5, ({ ref }) => [
    answer(`/${ref}/manifests/`, 307, { Location: `/v2/${ref}/manifests/again` }),
  ]),
  config('a config that is not there', 3, { status: 404 }),
  config('a config that is a login page', 5, LOGIN_PAGE),
  config('a config of endless bytes', 6, { status: 200, body: 'x'.repeat(6_000_000) }),
  config('a config that redirects to a file', 5, TO_A_FILE),
  config('a config that wants a token again and again', 4, { challenge: { always: true } }),
  config('a config that asks to wait for years', 5, { retryAfter: { status: 503, seconds: 99_999_999 } }),
  config('a config with a changed byte', 6, { flipByteAt: 20 }),
  answers('a config that redirects in circles', 5, ({ config }) => [
    answer(config, 307, { Location: `/v2${config}?again` }),
  ]),
  layer('a layer that is a login page', 5, LOGIN_PAGE),
  layer('a layer that redirects to a file', 5, TO_A_FILE),
  layer('a layer with a changed byte', 6, { flipByteAt: 20_000 }),
  layer('a layer whose range is that of another', 6, { wrongContentRange: 'bytes 5-9/10' }),
  layer('a layer that breaks off before its first byte', 5, { closeAfterBytes: 0 }),
];

export const STRANGE_ANSWERS: readonly LayerRow[] = [
  strange('a layer of which all comes for each range', { ignoreRange: true }),
  strange('a layer that comes slowly', { drip: { bytesPerSecond: 400_000 } }),
  strange('a layer that redirects to a storage that has it', { redirect: {} }),
];
