import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { PullError } from '../../../src/format/error.js';
import { parseReference } from '../../../src/format/reference.js';
import { checkPolicy } from '../../../src/registry/signature-policy.js';
import { skipUnless } from '../../support/programs.js';
import { temporaryDirectory } from '../../support/temporary.js';

const ACCEPT = [{ type: 'insecureAcceptAnything' }];
const REJECT = [{ type: 'reject' }];
const SIGNED = [{ type: 'signedBy', keyType: 'GPGKeys', keyPath: '/key' }];

interface Place {
  /** The user's policy.json and the system's, as text or as JSON. */
  readonly user?: object | string;
  readonly system?: object | string;
  readonly insecurePolicy?: boolean;
}

const USER = 'home/.config/containers/policy.json';
const SYSTEM = 'etc/containers/policy.json';

/**
 * What is said of an image under these files: a code, "accepted", or a warning; paths without the
 * directory of the test.
 */
function said(t: TestContext, place: Place, image = 'quay.io/team/app:1'): string {
  const root = temporaryDirectory(t);
  for (const [name, policy] of [
    [USER, place.user],
    [SYSTEM, place.system],
  ] as const) {
    if (policy === undefined) continue;
    const path = join(root, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, typeof policy === 'string' ? policy : JSON.stringify(policy));
  }
  return saidOf(root, image, place.insecurePolicy);
}

function saidOf(root: string, image = 'quay.io/team/app:1', insecurePolicy = false): string {
  const options = { env: { HOME: join(root, 'home') }, insecurePolicy, root };
  try {
    const warnings = checkPolicy(parseReference(image), options);
    return warnings.length === 0 ? 'accepted' : warnings.join('; ').replaceAll(`${root}/`, '');
  } catch (error) {
    assert.ok(error instanceof PullError, String(error));
    return `${error.code}: ${error.message.replaceAll(`${root}/`, '')}`;
  }
}

test('neither a policy that accepts anything nor a missing one causes a warning', (t) => {
  assert.equal(said(t, { user: { default: ACCEPT } }), 'accepted');
  assert.equal(said(t, {}), 'accepted');
});

test('an image that is rejected stays rejected, whatever other requirements there are', (t) => {
  const rejected = `policy-rejected: ${USER} rejects quay.io/team/app`;
  for (const list of [REJECT, [...ACCEPT, ...REJECT], [...SIGNED, ...REJECT], [...REJECT, { type: 'new' }]]) {
    for (const insecurePolicy of [false, true]) {
      assert.equal(said(t, { user: { default: list }, insecurePolicy }), rejected);
    }
  }
});

test('a proof that zpull cannot check is unsupported, and a warning with --insecure-policy', (t) => {
  for (const [list, demand] of [
    [SIGNED, 'a signature'],
    [[...ACCEPT, { type: 'sigstoreSigned' }], 'a sigstore signature'],
    [[{ type: 'signedBaseLayer' }, ...ACCEPT], 'a proof of the unknown type "signedBaseLayer"'],
    [[{ type: 'toString' }], 'a proof of the unknown type "toString"'],
    [[{ type: '' }], 'a proof of the unknown type ""'],
  ] as const) {
    const sentence = `${USER} asks for ${demand} of quay.io/team/app, which zpull cannot check`;
    assert.equal(said(t, { user: { default: list } }), `unsupported: ${sentence}`);
    assert.equal(
      said(t, { user: { default: list }, insecurePolicy: true }),
      `${sentence}: it checks digests only`,
    );
  }
});

test('the most specific scope of the image decides', (t) => {
  const digest = `sha256:${'ab'.repeat(32)}`;
  for (const [image, scopes, accepted] of [
    ['quay.io/team/app:1', { 'quay.io/team/app:1': ACCEPT, 'quay.io/team/app': REJECT }, true],
    ['quay.io/team/app:2', { 'quay.io/team/app:1': ACCEPT, 'quay.io/team/app': REJECT }, false],
    [`quay.io/team/app@${digest}`, { [`quay.io/team/app@${digest}`]: ACCEPT, 'quay.io': REJECT }, true],
    [`quay.io/team/app:1@${digest}`, { 'quay.io/team/app:1': ACCEPT, 'quay.io/team/app': REJECT }, false],
    ['quay.io/team/app', { 'quay.io/team/app:latest': REJECT }, false],
    ['quay.io/team/app', { 'quay.io/team': REJECT, 'quay.io': ACCEPT }, false],
    ['quay.io/team/app', { 'quay.io/team': ACCEPT, 'quay.io': REJECT }, true],
    ['quay.io/teams/app', { 'quay.io/team': REJECT, 'quay.io': ACCEPT }, true],
    ['quay.io/team/app', { 'quay.io/team/': REJECT }, true],
    ['quay.io:443/team/app', { 'quay.io': REJECT }, true],
    ['quay.io:443/team/app', { 'quay.io:443': REJECT, 'quay.io': ACCEPT }, false],
    ['a.b.example.com/x', { '*.example.com': REJECT, '*.b.example.com': ACCEPT }, true],
    ['a.b.example.com/x', { '*.com': ACCEPT, '*.example.com': REJECT }, false],
    ['a.b.example.com:5000/x', { '*.b.example.com': REJECT }, false],
    ['example.com/x', { '*.example.com': REJECT }, true],
    ['c.example.com/x', { 'c.example.com': ACCEPT, '*.example.com': REJECT }, true],
    ['c.example.com/x', { '*.example.com': REJECT, '': ACCEPT }, false],
    ['alpine', { 'docker.io/library': REJECT }, false],
    ['alpine', { 'docker.io/library/alpine': ACCEPT, 'docker.io': REJECT }, true],
    ['alpine', { alpine: REJECT, library: REJECT, 'library/alpine': REJECT }, true],
    ['alpine', { '': REJECT }, false],
    ['alpine', {}, true],
  ] as const) {
    const policy = { default: ACCEPT, transports: { docker: scopes, 'docker-daemon': { '': REJECT } } };
    assert.equal(
      said(t, { user: policy }, image) === 'accepted',
      accepted,
      `${image} ${JSON.stringify(scopes)}`,
    );
  }
  const signedOnly = { default: REJECT, transports: { docker: { '': ACCEPT } } };
  assert.equal(said(t, { user: signedOnly }), 'accepted');
  assert.match(said(t, { user: { default: REJECT, transports: { oci: { '': ACCEPT } } } }), /rejects/);
});

test('the user’s file replaces the system’s', (t) => {
  assert.equal(said(t, { user: { default: ACCEPT }, system: { default: REJECT } }), 'accepted');
  assert.match(said(t, { system: { default: REJECT } }), /^policy-rejected: etc\/containers/);
});

test('a malformed file is an error that names it, with --insecure-policy too', (t) => {
  for (const [policy, words] of [
    ['', /end|value|object/],
    ['{', /string|end/],
    [`\ufeff{}`, /./],
    ['[]', /no object/],
    ['null', /no object/],
    ['{}', /no list of requirements in "default"/],
    [{ default: [] }, /no list of requirements in "default"/],
    [{ default: {} }, /no list of requirements/],
    [{ default: [null] }, /no object/],
    [{ default: [{}] }, /without a type/],
    [{ default: [{ type: 1 }] }, /without a type/],
    [{ default: [{ type: 'reject', reason: 'x' }] }, /other fields/],
    [{ default: ACCEPT, defaults: REJECT }, /unknown key "defaults"/],
    [{ default: ACCEPT, Default: REJECT }, /some programs take/],
    ['{"default":[{"type":"reject"}],"default":[{"type":"insecureAcceptAnything"}]}', /twice/],
    ['{"default":[{"type":"reject","type":"insecureAcceptAnything"}]}', /twice/],
    [{ default: ACCEPT, transports: [] }, /no object where "transports"/],
    [{ default: ACCEPT, transports: { docker: [] } }, /no object where transport "docker"/],
    [{ default: ACCEPT, transports: { docker: { '': [] } } }, /no list of requirements in scope ""/],
    [{ default: ACCEPT, transports: { oci: { x: [{}] } } }, /without a type in scope "x"/],
    [{ default: ACCEPT, [`__proto__${'x'.repeat(9999)}`]: 1 }, /unknown key "__proto__x+…"$/],
    ['{"default":'.concat('['.repeat(50_000)), /nested/],
    [' '.repeat(2 ** 20 + 1), /larger than 1 MiB/],
  ] as const) {
    for (const insecurePolicy of [false, true]) {
      const text = said(t, { user: policy, insecurePolicy });
      assert.match(text, /^option-malformed: home\/\.config\/containers\/policy\.json /);
      assert.match(text, words);
      assert.ok(text.length < 400, text);
    }
  }
});

test('a policy that is no regular file is an error', { skip: skipUnless('mkfifo') }, (t) => {
  const root = temporaryDirectory(t);
  const path = join(root, USER);
  mkdirSync(path, { recursive: true });
  assert.match(saidOf(root), /^option-malformed: .*policy\.json is a directory/);
  const other = temporaryDirectory(t);
  mkdirSync(join(other, 'etc/containers'), { recursive: true });
  execFileSync('mkfifo', [join(other, SYSTEM)]);
  assert.match(saidOf(other), /^option-malformed: .*policy\.json is not a regular file/);
});

test("a user's file that cannot be read causes a warning, and the system's decides; one of the system is not skipped", (t) => {
  const root = temporaryDirectory(t);
  for (const name of [USER, SYSTEM]) mkdirSync(dirname(join(root, name)), { recursive: true });
  // Root reads all files, but follows no link to itself.
  symlinkSync('policy.json', join(root, USER));
  assert.match(saidOf(root), /policy\.json cannot be read \(ELOOP\): what it asks of images is not known/);
  writeFileSync(join(root, SYSTEM), JSON.stringify({ default: REJECT }));
  assert.match(saidOf(root), /^policy-rejected/);
  rmSync(join(root, SYSTEM));
  symlinkSync('policy.json', join(root, SYSTEM));
  assert.match(saidOf(root), /^unsupported: etc\/containers\/policy\.json cannot be read \(ELOOP\)/);
  const insecure = saidOf(root, undefined, true);
  assert.match(
    insecure,
    /etc\/containers\/policy\.json cannot be read \(ELOOP\): what it asks of images is not known/,
  );
});

test('a symbolic link to a layout has the scopes of the layout, and of the directories around that', (t) => {
  const root = temporaryDirectory(t);
  const kept = join(root, 'kept');
  mkdirSync(join(kept, 'layout'), { recursive: true });
  const link = join(root, 'link');
  symlinkSync(join(kept, 'layout'), link);
  const saidWith = (path: string, policy: object) => {
    mkdirSync(join(root, dirname(USER)), { recursive: true });
    writeFileSync(join(root, USER), JSON.stringify(policy));
    const options = { env: { HOME: join(root, 'home') }, insecurePolicy: false, root };
    try {
      return checkPolicy({ transport: 'oci', path }, options).join() || 'accepted';
    } catch (error) {
      return error instanceof PullError ? error.code : String(error);
    }
  };
  const real = realpathSync(kept);
  for (const scope of [real, join(real, 'layout')]) {
    const rejects = { default: ACCEPT, transports: { oci: { [scope]: REJECT } } };
    assert.equal(saidWith(link, rejects), 'policy-rejected');
    const accepts = { default: REJECT, transports: { oci: { [scope]: ACCEPT } } };
    assert.equal(saidWith(link, accepts), 'accepted');
  }
  // The place of the link is no scope of what it leads to.
  assert.equal(
    saidWith(link, { default: REJECT, transports: { oci: { [link]: ACCEPT } } }),
    'policy-rejected',
  );
  assert.equal(saidWith(join(root, 'absent'), { default: REJECT }), 'policy-rejected');
});
