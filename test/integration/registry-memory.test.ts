import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { maxRssBytesOf, outcomesOf, startPullingChild } from '../support/child.js';
import { listen } from '../support/scripted-server.js';
import { temporaryDirectory } from '../support/temporary.js';

/** Node with all modules of a pull takes about 80 MB, and three answers of this size 1 MB. */
const MAX_BYTES = 130e6;

/** A list of chunks took over 250 bytes for each byte: 240 MB with these, 0.9 GB with 1 MB each. */
const ANSWER_BYTES = 200_000;

/** JSON with spaces before its end, so that it has this length. */
function padded(value: object): Buffer {
  return Buffer.from(
    JSON.stringify(value)
      .slice(0, -1)
      .padEnd(ANSWER_BYTES - 1)
      .concat('}'),
  );
}

function digestOf(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** The bytes as HTTP chunks of one byte each. */
function inCrumbs(bytes: Buffer): Buffer {
  const one = Buffer.from('1\r\nx\r\n');
  const crumbs = Buffer.alloc(bytes.length * one.length, one);
  for (const [i, byte] of bytes.entries()) crumbs[i * one.length + 3] = byte;
  return Buffer.concat([crumbs, Buffer.from('0\r\n\r\n')]);
}

/** A registry that sends all bodies in chunks of one byte. */
async function crumblingRegistry(t: TestContext): Promise<string> {
  const config = padded({ os: 'linux', architecture: 'amd64' });
  const type = 'application/vnd.oci.image.';
  const manifest = padded({
    schemaVersion: 2,
    mediaType: `${type}manifest.v1+json`,
    config: { mediaType: `${type}config.v1+json`, digest: digestOf(config), size: config.length },
    layers: [{ mediaType: `${type}layer.v1.tar`, digest: digestOf(Buffer.alloc(9)), size: 9 }],
  });
  const bodies = [padded({ token: 'token' }), manifest, config].map(inCrumbs);
  const answer = (socket: Socket, request: string) => {
    const at = request.startsWith('GET /token') ? 0 : request.includes('/manifests/') ? 1 : 2;
    const head =
      'Transfer-Encoding: chunked\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n\r\n';
    if (at === 0 || request.includes('authorization: Bearer token')) {
      socket.write(`HTTP/1.1 200 OK\r\n${head}`);
      socket.write(bodies[at]!);
      return;
    }
    const realm = `Bearer realm="http://${host}/token"`;
    socket.write(`HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: ${realm}\r\nContent-Length: 0\r\n\r\n`);
  };
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (request) => answer(socket, request.toString('latin1')));
  });
  const host = await listen(server);
  t.after(() => server.close());
  return host;
}

test('token, manifest and config in chunks of one byte take no more memory than their bytes', async (t) => {
  const host = await crumblingRegistry(t);
  const options = { store: temporaryDirectory(t), workers: 1 };
  const child = startPullingChild(t, { image: `${host}/x:it`, options });
  assert.equal(await child.gone, 0);
  const [outcome] = outcomesOf(child.lines);
  // The config has no list of DiffIDs: it was read, and it is the end.
  assert.match(JSON.stringify(outcome), /metadata-malformed.* 0 DiffIDs/);
  const peakBytes = maxRssBytesOf(child.lines);
  t.diagnostic(`${(peakBytes / 1e6).toFixed(0)} MB`);
  assert.ok(peakBytes < MAX_BYTES, `${peakBytes} bytes`);
});
