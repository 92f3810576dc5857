import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { PullError } from '../../src/api/errors.js';
import { pullImage } from '../../src/api/pull.js';
import { type Answering, startServer } from '../support/scripted-server.js';
import { temporaryDirectory } from '../support/temporary.js';

/** A sentence with a host, a repository, a digest, the path of a file and 200 characters of a server's own. */
const MAX_CHARACTERS = 1200;

/** What a server may say in a header: Node takes 16 KiB of them. */
const LONG = 'x'.repeat(7000);

const CASES: Readonly<Record<string, Answering>> = {
  'the host of a redirect': (_, response) => response.writeHead(307, { location: `http://${LONG}/` }).end(),
  'labels of a host': (_, response) =>
    response.writeHead(307, { location: `http://${'a.'.repeat(3000)}b/` }).end(),
  'the path of a redirect': (_, response) =>
    response.writeHead(307, { location: `/${LONG.slice(0, 5000)}` }).end(),
  'a token server': (_, response) =>
    response.writeHead(401, { 'www-authenticate': `Bearer realm="http://${LONG}/"` }).end(),
  'a service': ({ url, headers }, response) => {
    const realm = `http://${headers.host}/token`;
    if (url?.startsWith('/token')) response.writeHead(403).end();
    else response.writeHead(401, { 'www-authenticate': `Bearer realm="${realm}",service="${LONG}"` }).end();
  },
  'a media type': (_, response) => response.writeHead(200, { 'content-type': `text/${LONG}` }).end('{}'),
  'an encoding': (_, response) => response.writeHead(200, { 'content-encoding': LONG }).end('{}'),
  'a message': (_, response) =>
    response.writeHead(404).end(JSON.stringify({ errors: [{ code: LONG, message: LONG.repeat(8) }] })),
  'a message of a failure': (_, response) =>
    response.writeHead(500).end(JSON.stringify({ errors: [{ message: LONG.repeat(8) }] })),
  'a wait': (_, response) => response.writeHead(429, { 'retry-after': '9'.repeat(10) }).end(),
  'a reason phrase': (_, response) => response.writeHead(418, LONG).end(),
};

/** Each text that a pull shows: its events, and the message and the hint of its end. */
async function textsOf(t: TestContext, answer: Answering): Promise<string[]> {
  const server = await startServer(answer);
  t.after(() => server.close());
  const texts: string[] = [];
  const onEvent = (event: object) => void texts.push(JSON.stringify(event));
  const stop = AbortSignal.timeout(20_000);
  const options = { store: temporaryDirectory(t), debug: true, signal: stop, onEvent };
  const error: unknown = await pullImage(`${server.host}/x:it`, options).catch((reason: unknown) => reason);
  assert.ok(error instanceof PullError, String(error));
  assert.ok(!stop.aborted);
  return [...texts, error.message, error.hint];
}

for (const [what, answer] of Object.entries(CASES)) {
  test(`${what} without end is cut, or not repeated at all`, async (t) => {
    for (const text of await textsOf(t, answer)) {
      assert.ok(text.length < MAX_CHARACTERS, `${text.length} characters: ${text.slice(0, 200)}…`);
    }
  });
}
