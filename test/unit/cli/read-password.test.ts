import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { readPassword } from '../../../src/cli/pull-options.js';

function read(...chunks: string[]) {
  const options = { username: 'me', 'password-stdin': true, json: true };
  return readPassword(options, Readable.from(chunks.map((chunk) => Buffer.from(chunk))));
}

test('the password is what standard input has, without one line end behind it', async () => {
  for (const [chunks, password] of [
    [['secr', 'et\n'], 'secret'],
    [['secret\r\n'], 'secret'],
    [[' a:b \n\n'], ' a:b \n'],
  ] as const) {
    assert.deepEqual(await read(...chunks), { json: true, creds: `me:${password}` });
  }
});

test('without the option nothing is read', async () => {
  const options = { creds: 'a:b' };
  const input = Readable.from([Buffer.from('x')]);
  assert.equal(await readPassword(options, input), options);
  assert.equal(input.readableDidRead, false);
});

test('no password, or a file in its place, is wrong usage', async () => {
  await assert.rejects(read(), { code: 'option-malformed', message: /has no password/ });
  await assert.rejects(read('\n'), { message: /has no password/ });
  await assert.rejects(read('x'.repeat(64 * 1024 + 1)), { message: /too long/ });
});

test('a user name with a colon would be another one', async () => {
  const options = { username: 'a:b', 'password-stdin': true };
  await assert.rejects(readPassword(options, Readable.from([Buffer.from('x')])), {
    code: 'option-malformed',
  });
});

test('an input that goes on without an end is given up', async () => {
  const options = { username: 'me', 'password-stdin': true };
  const silent = new Readable({ read: () => {} });
  await assert.rejects(readPassword(options, silent, 50), { message: /did not end within 0\.05 s/ });
  assert.equal(silent.destroyed, true);
  const trickle = new Readable({ read: () => void setTimeout(() => trickle.push('x'), 5) });
  await assert.rejects(readPassword(options, trickle, 50), { message: /did not end within/ });
});
