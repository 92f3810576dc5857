import assert from 'node:assert/strict';
import { test } from 'node:test';
import { requestLine } from '../../../src/registry/redaction.js';

const URL_WITH_SECRETS = new URL('https://user:secret@example.com:5000/v2/a/blobs/b?sig=secret#secret');

test('a line has the request and the outcome, without query and user', () => {
  const told = { method: 'GET', url: URL_WITH_SECRETS, startedMs: 100 };
  assert.equal(
    requestLine({ ...told, range: 'bytes=0-9', status: 206, bytes: 10 }, 120.4),
    'GET example.com:5000/v2/a/blobs/b bytes=0-9: 206, 10 bytes, 20 ms',
  );
  assert.equal(
    requestLine({ ...told, method: 'HEAD', status: 0, bytes: 0, retryReason: 'it broke off' }, 100),
    'HEAD example.com:5000/v2/a/blobs/b: no answer, 0 bytes, 0 ms; again, as it broke off',
  );
  assert.equal(
    requestLine({ ...told, status: 200, bytes: 0, failureReason: 'it is encoded' }, 100),
    'GET example.com:5000/v2/a/blobs/b: 200, 0 bytes, 0 ms; given up, as it is encoded',
  );
});
