import assert from 'node:assert/strict';
import { test } from 'node:test';
import { firstErrorMessage, refusal } from '../../../src/registry/refusal.js';

function messageOf(answer: unknown): string | undefined {
  return firstErrorMessage(Buffer.from(JSON.stringify(answer)));
}

test('the first error counts, by its message or else its code', () => {
  assert.equal(messageOf({ errors: [{ code: 'A', message: 'one' }, { message: 'two' }] }), '"one"');
  assert.equal(messageOf({ errors: [{ code: 'DENIED', message: '' }] }), '"DENIED"');
});

test('any other body has no message', () => {
  for (const answer of [
    null,
    1,
    [],
    {},
    { errors: {} },
    { errors: [] },
    { errors: ['x'] },
    { errors: [{ message: 1 }] },
  ]) {
    assert.equal(messageOf(answer), undefined);
  }
  assert.equal(firstErrorMessage(Buffer.from('<html>')), undefined);
});

test('foreign text is cut and cannot move a cursor or turn the line around', () => {
  assert.equal(
    messageOf({ errors: [{ message: 'a\u001b[2J\n\u009b\u202eb\u2028"' }] }),
    '"a\\u001b[2J\\n\\u009b\\u202eb\\u2028\\""',
  );
  assert.equal(messageOf({ errors: [{ message: 'x'.repeat(5000) }] })?.length, 203);
});

test('secrets in foreign text are masked, and the rest is shown', () => {
  for (const [message, told] of [
    ['Get "https://s3.example/b?X-Sig=abc&k=1": timeout', 'Get "https://s3.example/b?…": timeout'],
    ['at http://me:pa%40ss@h:1/x#frag, and ftp://t@h/', 'at http://h:1/x?… and ftp://h/'],
    ['Authorization: Bearer eyJ.a-b_c.d== is expired', 'Authorization: Bearer … is expired'],
    ['no such account: basic bWU6eA==', 'no such account: basic …'],
    ['mail me@example.com? see https://h/path', 'mail me@example.com? see https://h/path'],
  ] as const) {
    assert.equal(messageOf({ errors: [{ message }] }), JSON.stringify(told));
  }
  // Before it is cut: a name and password that reach over the end have no @ behind them any more.
  const long = messageOf({ errors: [{ message: `http://me:${'s'.repeat(300)}@h/` }] });
  assert.equal(long, '"http://h/"');
  assert.ok(messageOf({ errors: [{ message: '://'.repeat(20_000) }] }) !== undefined);
});

test('each status has its code', () => {
  const wanted = { host: 'h', repository: 'r', name: 'v1', kind: 'manifest' } as const;
  const codeFor = (status: number, kind: 'manifest' | 'blob') =>
    refusal(status, { ...wanted, kind }, Buffer.alloc(0)).code;
  assert.deepEqual(
    [401, 403, 404, 400].map((status) => codeFor(status, 'manifest')),
    ['unauthorized', 'unauthorized', 'image-not-found', 'answer-unexpected'],
  );
  for (const status of [204, 400, 410, 416]) {
    assert.match(refusal(status, wanted, Buffer.alloc(0)).hint ?? '', /--debug/);
  }
  assert.equal(codeFor(404, 'blob'), 'blob-not-found');
});

test('an image is named as its user named it', () => {
  const wanted = { host: 'h', repository: 'r', name: 'v1', kind: 'manifest' } as const;
  assert.equal(refusal(404, wanted, Buffer.alloc(0)).message, 'h has no image r:v1');
  assert.equal(
    refusal(404, { ...wanted, name: 'sha256:ab' }, Buffer.alloc(0)).message,
    'h has no image r@sha256:ab',
  );
});

test('an error code for missing rights counts, whatever the status', () => {
  const wanted = { host: 'h', repository: 'r', name: 'v1', kind: 'manifest' } as const;
  const codeFor = (status: number, code: string) =>
    refusal(status, wanted, Buffer.from(JSON.stringify({ errors: [{ code, message: 'no' }] }))).code;
  assert.equal(codeFor(404, 'DENIED'), 'unauthorized');
  assert.equal(codeFor(404, 'UNAUTHORIZED'), 'unauthorized');
  assert.equal(codeFor(400, 'DENIED'), 'unauthorized');
  assert.equal(codeFor(404, 'NAME_UNKNOWN'), 'image-not-found');
  assert.equal(codeFor(418, 'DENIED'), 'answer-unexpected');
});

test('a refusal names the sources of credentials that were searched or used', () => {
  const wanted = { host: 'h', repository: 'r', name: 'v1', kind: 'manifest' } as const;
  const hintFor = (from: string | undefined) =>
    refusal(401, wanted, Buffer.alloc(0), { from, sources: ['/a', '/b'] });
  assert.match(
    hintFor(undefined).hint ?? '',
    /^log in with "docker login h" or "podman login h".* searched .* in \/a, \/b$/,
  );
  assert.match(hintFor('/a').message, /^h denies access to r with the credentials of \/a$/);
  assert.match(hintFor('/a').hint ?? '', /log in with another: "docker login h"/);
});

test('a pull limit is told with what the registry states of it, and when it is over', () => {
  const wanted = { host: 'h', repository: 'r', name: 'v1', kind: 'manifest' } as const;
  const told = (headers: Record<string, string>) => {
    const { message, hint } = refusal(429, wanted, Buffer.alloc(0), undefined, headers);
    return `${message} | ${hint}`;
  };
  assert.match(
    told({ 'ratelimit-limit': '100;w=21600' }),
    /\(429: its limit is 100 in 6 h\) \|.*try again later/,
  );
  assert.match(
    told({ 'x-ratelimit-reset': '4102444800' }),
    /\(429\) \|.*try again after 2100-01-01 00:00 UTC/,
  );
  assert.match(told({ 'ratelimit-reset': '90' }), /try again after 20\d\d-\d\d-\d\d \d\d:\d\d UTC/);
  for (const reset of ['', 'soon', '-1', '0', '1', '9'.repeat(20)]) {
    assert.match(
      told({ 'ratelimit-reset': reset }),
      reset === '1' ? /try again after 20/ : /try again later/,
    );
  }
});

test('who asks for a tag that is not there is told how to list those that are', () => {
  const wanted = { host: 'h', repository: 'r', name: 'v1', kind: 'manifest' } as const;
  assert.match(refusal(404, wanted, Buffer.alloc(0)).hint, /zpull tags h\/r lists/);
  assert.match(refusal(404, { ...wanted, name: 'sha256:ab' }, Buffer.alloc(0)).hint, /tag has moved/);
});
