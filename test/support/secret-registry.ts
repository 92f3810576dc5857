import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';
import type { TestContext } from 'node:test';
import { fixtureBlob, MANIFEST_DIGEST } from './fixture-layout.js';
import { type Answering, answerRange, type ScriptedServer, startServer } from './scripted-server.js';

/** Part of every secret, and of nothing else. */
export const CANARY = 'canary';

export function base64(text: string): string {
  return Buffer.from(text).toString('base64');
}

/** Asserts that a text does not have the canary, neither plain nor in base64 as in Basic authentication. */
export function assertNoCanary(text: string): void {
  const at = text.search(/canary/i);
  assert.ok(at < 0, `…${text.slice(Math.max(0, at - 200), at + 50)}…`);
  for (const [encoded] of text.matchAll(/[\w+/-]{8,}/g)) {
    // Base64 may begin anywhere, and four characters are three bytes.
    for (let start = 0; start < 4; start++) {
      const decoded = Buffer.from(encoded.slice(start), 'base64').toString('latin1');
      assert.ok(!/canary/i.test(decoded), `${encoded} has a canary within`);
    }
  }
}

/** The server that refuses, breaks, answers nonsense or redirects. */
export type Trouble =
  | `${'registry' | 'tokens' | 'storage'} ${'refuses' | 'fails' | 'redirects'}`
  | 'tokens are nonsense';

interface SecretRegistry extends ScriptedServer {
  /** What the token server was given: a Basic value or a refresh token. */
  readonly given: readonly string[];
}

/** An error text that repeats the request with its credentials. */
const WORDS = `Get "http://me:${CANARY}@inner.example/x?sig=${CANARY}&key=${CANARY}#${CANARY}" with Bearer ${CANARY}, Basic ${base64(`me:${CANARY}`)}: no`;

function answerTrouble(response: ServerResponse, status: number): void {
  response.writeHead(status, {
    'content-type': 'application/json',
    location: `ftp://me:${CANARY}@127.0.0.1:1/${CANARY}?sig=${CANARY}`,
  });
  response.end(
    JSON.stringify({ errors: [{ code: 'UNKNOWN', message: WORDS, detail: CANARY }], details: CANARY }),
  );
}

const STATUSES: Readonly<Record<string, number>> = { refuses: 403, fails: 500, redirects: 307 };

/**
 * A registry of chunked-v1 under every name, behind tokens, whose blobs are elsewhere, with a canary in every answer that
 * can have one. Its users are `me` and `<token>`, with the canary.
 */
export async function startSecretRegistry(t: TestContext, trouble?: Trouble): Promise<SecretRegistry> {
  const serve = async (answer: Answering) => {
    const server = await startServer(answer);
    t.after(() => server.close());
    return server;
  };
  const [who, what = ''] = trouble?.split(' ') ?? [];
  const storage = await serve((request, response) => {
    const ranged = request.headers.range !== undefined;
    const blob = fixtureBlob(/sha256:[0-9a-f]{64}/.exec(request.url ?? '')![0]);
    // The config is served: failures are for workers.
    if (who === 'storage' && ranged) answerTrouble(response, STATUSES[what]!);
    else if (ranged) answerRange(request, response, blob);
    else response.end(blob);
  });
  const given: string[] = [];
  const tokens = await serve(async (request, response) => {
    const form = new URLSearchParams(await text(request));
    const secret = form.get('refresh_token') ?? request.headers.authorization ?? '';
    given.push(secret);
    if (trouble === 'tokens are nonsense') response.end(`{"token": "${CANARY} ${CANARY}", ${CANARY}`);
    else if (who === 'tokens') answerTrouble(response, STATUSES[what]!);
    else if (![CANARY, `Basic ${base64(`me:${CANARY}`)}`].includes(secret)) answerTrouble(response, 401);
    else {
      const token = `${CANARY}-token`;
      response.end(JSON.stringify({ token, access_token: token, refresh_token: `${CANARY}-refresh` }));
    }
  });
  const realm = `http://me:${CANARY}@${tokens.host}/token?key=${CANARY}`;
  const challenge = `Bearer realm="${realm}",service="${CANARY}",error_description="${CANARY}"`;
  const registry = await serve((request, response) => {
    const { url = '', headers } = request;
    const [digest] = /sha256:[0-9a-f]{64}/.exec(url) ?? [];
    const known = headers.authorization === `Bearer ${CANARY}-token`;
    if (!known || trouble === 'registry refuses') {
      response.writeHead(401, { 'www-authenticate': challenge }).end(`no ${CANARY}`);
    } else if (who === 'registry') {
      answerTrouble(response, STATUSES[what]!);
    } else if (url.includes('/manifests/')) {
      const type = 'application/vnd.oci.image.manifest.v1+json';
      response.writeHead(200, { 'content-type': type }).end(fixtureBlob(MANIFEST_DIGEST));
    } else {
      const location = `http://me:${CANARY}@${storage.host}/${digest}?sig=${CANARY}#${CANARY}`;
      response.writeHead(307, { location }).end();
    }
  });
  return { ...registry, given };
}
