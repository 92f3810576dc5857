import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { listTags } from '../../src/api/pull.js';
import { FIXTURE_LAYOUT } from '../support/fixture-layout.js';
import { ZPULL } from '../support/programs.js';
import { startSandbox } from '../support/sandbox.js';
import { type Answering, startServer } from '../support/scripted-server.js';

const run = promisify(execFile);

async function lines(...args: string[]): Promise<string[]> {
  const { stdout } = await run(process.execPath, [...ZPULL, 'tags', ...args]);
  return stdout.split('\n').slice(0, -1);
}

/** The host of a registry that answers every request in this way. */
async function registry(t: TestContext, answer: Answering): Promise<string> {
  const server = await startServer(answer);
  t.after(() => server.close());
  return server.host;
}

/** Pages as a registry gives them: the tags, and where the next page is. */
function pages(...given: readonly { tags: unknown; next?: string }[]): Answering {
  return (request, response) => {
    const page = Number(new URL(request.url!, 'http://x').searchParams.get('page') ?? 0);
    const { tags, next } = given[page]!;
    response.writeHead(200, next === undefined ? {} : { link: `<${next}>; rel="next"` });
    response.end(JSON.stringify({ name: 'a/b', tags }));
  };
}

test('the tags of all pages are listed once, in the order of the registry', async (t) => {
  const { host } = await startSandbox(t);
  assert.deepEqual(await listTags(`${host}/a/b`), {
    repository: `${host}/a/b`,
    tags: ['chunked-v1', 'chunked-v2'],
  });
  const paged = await registry(
    t,
    pages(
      { tags: ['2', '10'], next: '/v2/a/b/tags/list?page=1&last=10' },
      // A proxy before it has another scheme and host.
      { tags: ['10', '-no-tag', 5, '1.10'], next: 'https://inside.example/v2/a/b/tags/list?page=2' },
      { tags: null },
    ),
  );
  assert.deepEqual((await listTags(`${paged}/a/b`)).tags, ['2', '10', '1.10']);
});

test('pages without end, or that are no lists of tags, are errors that name the registry', async (t) => {
  const endless = await registry(t, pages({ tags: ['a'], next: '/v2/a/b/tags/list?page=0' }));
  await assert.rejects(listTags(`${endless}/a/b`), { code: 'answer-unexpected' });
  for (const body of ['no JSON', '{"tags": "latest"}', '[]', '{"tags": [', `"${'x'.repeat(9 * 2 ** 20)}"`]) {
    const host = await registry(t, (_, response) => response.end(body));
    await assert.rejects(listTags(`${host}/a/b`), (error: { code: string; message: string }) => {
      assert.equal(error.code, 'metadata-malformed');
      return error.message.includes(host);
    });
  }
  const page = await registry(t, (_, response) => response.end('<html><title>Log in</title></html>'));
  await assert.rejects(
    listTags(`${page}/a/b`),
    /web page where the list of tags of a\/b should be, "Log in"/,
  );
});

test('a repository that is not there is an error, and so is the name of one image', async (t) => {
  const host = await registry(t, (_, response) => response.writeHead(404).end());
  await assert.rejects(listTags(`${host}/a/b`), {
    code: 'image-not-found',
    message: `${host} has no repository a/b`,
  });
  for (const name of ['alpine:latest', `alpine@sha256:${'0'.repeat(64)}`, `oci:${FIXTURE_LAYOUT}:v1`]) {
    await assert.rejects(listTags(name), { code: 'reference-malformed' }, name);
  }
});

test('the command prints a line a tag, those that match a pattern, and those of a layout', async (t) => {
  const { host } = await startSandbox(t);
  assert.deepEqual(await lines(`${host}/a/b`), ['chunked-v1', 'chunked-v2']);
  assert.deepEqual(await lines(`docker://${host}/a/b:*2`), ['chunked-v2']);
  assert.deepEqual(await lines(`${host}/a/b:none`), []);
  assert.deepEqual(await lines(`oci:${FIXTURE_LAYOUT}:chunked-v1`), ['chunked-v1']);
  const [json = ''] = await lines('--json', `${host}/a/b`);
  assert.deepEqual(JSON.parse(json), { repository: `${host}/a/b`, tags: ['chunked-v1', 'chunked-v2'] });
});
