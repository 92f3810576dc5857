import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { parseReference } from '../../../src/format/reference.js';
import { signatureWarning } from '../../../src/registry/signature-policy.js';
import { temporaryDirectory } from '../../support/temporary.js';

const ACCEPT = [{ type: 'insecureAcceptAnything' }];
const SIGNED = [{ type: 'signedBy', keyType: 'GPGKeys', keyPath: '/key' }];

/** What is told of an image under this text as the user's policy.json. */
function warned(t: TestContext, policy: object | string, image = 'quay.io/team/app:1'): string | undefined {
  const home = temporaryDirectory(t);
  const path = join(home, '.config/containers/policy.json');
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, typeof policy === 'string' ? policy : JSON.stringify(policy));
  return signatureWarning(parseReference(image), { HOME: home })?.slice(home.length);
}

test('a policy that accepts anything says nothing, one that asks for more is told', (t) => {
  assert.equal(warned(t, { default: ACCEPT }), undefined);
  assert.equal(
    warned(t, { default: SIGNED }),
    '/.config/containers/policy.json asks for a signature for quay.io/team/app; zpull checks digests and no signatures',
  );
  assert.match(warned(t, { default: [...ACCEPT, { type: 'sigstoreSigned' }] }) ?? '', /sigstore signature/);
  assert.match(warned(t, { default: [{ type: 'reject' }] }) ?? '', /rejects it/);
  assert.match(warned(t, { default: [{ type: 'toString' }] }) ?? '', /more than digests/);
});

test('the most specific scope of the image counts', (t) => {
  const digest = `sha256:${'ab'.repeat(32)}`;
  for (const [image, scopes, told] of [
    ['quay.io/team/app:1', { 'quay.io/team/app:1': ACCEPT, 'quay.io/team/app': SIGNED }, false],
    ['quay.io/team/app:2', { 'quay.io/team/app:1': ACCEPT, 'quay.io/team/app': SIGNED }, true],
    [`quay.io/team/app@${digest}`, { [`quay.io/team/app@${digest}`]: ACCEPT, 'quay.io': SIGNED }, false],
    ['quay.io/team/app', { 'quay.io/team': SIGNED, 'quay.io': ACCEPT }, true],
    ['quay.io/teams/app', { 'quay.io/team': SIGNED, 'quay.io': ACCEPT }, false],
    ['a.b.example.com/x', { '*.example.com': SIGNED, '*.b.example.com': ACCEPT }, false],
    ['c.example.com/x', { '*.example.com': SIGNED, '': ACCEPT }, true],
    ['alpine', { 'docker.io/library': SIGNED }, true],
    ['alpine', { '': SIGNED }, true],
    ['alpine', {}, false],
  ] as const) {
    const text = warned(t, { default: ACCEPT, transports: { docker: scopes } }, image);
    assert.equal(text !== undefined, told, `${image} ${JSON.stringify(scopes)}`);
  }
});

test('a policy that cannot be understood is told as well', (t) => {
  assert.match(warned(t, '{') ?? '', /is no JSON/);
  assert.match(warned(t, { transports: {} }) ?? '', /does not say/);
});
