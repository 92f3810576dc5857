import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PullError } from '../../../src/format/error.js';
import {
  formatLocalImage,
  formatReference,
  parseLocalImage,
  parseReference,
} from '../../../src/format/reference.js';
import { throwsError } from './fixture.js';

const HEX = '0123456789abcdef'.repeat(4);
const DIGEST = `sha256:${HEX}`;

const expanded: [string, string][] = [
  ['alpine', 'docker.io/library/alpine:latest'],
  ['alpine:3.20', 'docker.io/library/alpine:3.20'],
  ['bitnami/redis', 'docker.io/bitnami/redis:latest'],
  ['docker.io/alpine', 'docker.io/library/alpine:latest'],
  ['index.docker.io/alpine', 'docker.io/library/alpine:latest'],
  ['index.docker.io/a/b', 'docker.io/a/b:latest'],
  ['docker.io', 'docker.io/library/docker.io:latest'],
  ['localhost/a', 'localhost/a:latest'],
  ['localhost:5000/a', 'localhost:5000/a:latest'],
  ['localhost:5000', 'docker.io/library/localhost:5000'],
  ['local/a', 'docker.io/local/a:latest'],
  ['Host/a', 'Host/a:latest'],
  ['ghcr.io/owner/name', 'ghcr.io/owner/name:latest'],
  ['host:5000/a/b:c', 'host:5000/a/b:c'],
  ['127.0.0.1:5000/a', '127.0.0.1:5000/a:latest'],
  ['[::1]/a', '[::1]/a:latest'],
  ['[2001:db8::1]:5000/a:b', '[2001:db8::1]:5000/a:b'],
  [`a@${DIGEST}`, `docker.io/library/a@${DIGEST}`],
  [`h.io:1/a:t@${DIGEST}`, `h.io:1/a:t@${DIGEST}`],
  ['x/a.b_c__d---e', 'docker.io/x/a.b_c__d---e:latest'],
  [`a:${'t'.repeat(128)}`, `docker.io/library/a:${'t'.repeat(128)}`],
  ['a:_T.-1', 'docker.io/library/a:_T.-1'],
  ['docker://alpine', 'docker.io/library/alpine:latest'],
  ['docker://h.io:5000/a/b:c', 'h.io:5000/a/b:c'],
  [`docker://a@${DIGEST}`, `docker.io/library/a@${DIGEST}`],
  // A transport before it says that the rest is a name.
  ['docker://dir:v1', 'docker.io/library/dir:v1'],
  ['docker:dind', 'docker.io/library/docker:dind'],
  ['dir/a:v1', 'docker.io/dir/a:v1'],
  ['docker-archive', 'docker.io/library/docker-archive:latest'],
  [`h.io/${'a'.repeat(255)}`, `h.io/${'a'.repeat(255)}:latest`],
  ['h.io:65535/a', 'h.io:65535/a:latest'],
];

for (const [text, whole] of expanded) {
  test(`${text.slice(0, 80)} is read as Docker reads it`, () => {
    assert.equal(formatReference(parseReference(text)), whole);
    assert.deepEqual(parseReference(whole), parseReference(text));
  });
}

test('the parts of a reference are distinguished', () => {
  assert.deepEqual(parseReference(`h.io:5000/a/b:t@${DIGEST}`), {
    host: 'h.io:5000',
    repository: 'a/b',
    tag: 't',
    digest: DIGEST,
  });
  assert.deepEqual(parseReference('a'), { host: 'docker.io', repository: 'library/a', tag: 'latest' });
  assert.deepEqual(Object.keys(parseReference(`a@${DIGEST}`)), ['host', 'repository', 'digest']);
});

const malformed: [string, RegExp][] = [
  ['', /it is empty/],
  [' a', /" a" cannot be part of a repository/],
  ['a b', /cannot be part of a repository/],
  ['a\n', /cannot be part of a repository/],
  ['docker://', /it is empty/],
  ['docker://docker://alpine', /it starts with docker:\/\//],
  ['docker:///alpine', /a part of its repository is empty/],
  ['Docker://alpine', /it starts with Docker:\/\//],
  ['docker-image://alpine', /it starts with docker-image:\/\//],
  ['docker-daemon:alpine:3', /zpull reads no images from docker-daemon:/],
  ['docker-daemon://alpine', /zpull reads no images from docker-daemon:/],
  ['docker-archive:./a.tar', /zpull reads no images from docker-archive:/],
  ['docker-archive:a.tar', /zpull reads no images from docker-archive:/],
  ['containers-storage:[vfs@/var/lib]alpine', /zpull reads no images from containers-storage:/],
  ['dir:/a/b', /zpull reads no images from dir:/],
  ['oci-layout:/a/b', /a layout in a directory is named as oci:DIR/],
  ['oci-layout://a/b', /a layout in a directory is named as oci:DIR/],
  ['https://ghcr.io/a/b', /it starts with https:\/\//],
  ['oci-archive://x', /it starts with oci-archive:\/\//],
  [HEX, /64 hex digits could be an image ID/],
  ['Alpine', /its repository has upper-case letters/],
  ['ghcr.io/Owner/name', /its repository has upper-case letters/],
  ['a:', /"" is not a tag/],
  ['a:-b', /"-b" is not a tag/],
  ['a:.b', /".b" is not a tag/],
  ['a:b:c', /"b:c" is not a tag/],
  [`a:${'t'.repeat(129)}`, /is not a tag/],
  ['a@', /"" is not a digest/],
  ['a@sha256', /"sha256" is not a digest/],
  [`a@${HEX}`, /is not a digest/],
  [`a@sha256:${HEX.slice(2)}`, /its digest has 62 hex digits instead of 64/],
  [`a@sha256:${HEX.toUpperCase()}`, /its digest has upper-case hex digits/],
  [`a@md5:${HEX.slice(32)}`, /its digest is no sha256/],
  [`a@${DIGEST}@x`, /"x" is not a digest/],
  [`a@${DIGEST}@${DIGEST}`, /is not a digest/],
  ['/a', /a part of its repository is empty/],
  ['a//b', /a part of its repository is empty/],
  ['a/', /a part of its repository is empty/],
  ['ghcr.io/', /a part of its repository is empty/],
  ['a/../b', /"\.\." cannot be part of a repository/],
  ['a/..%2fb', /cannot be part of a repository/],
  ['a/.b', /"\.b" cannot be part/],
  ['a/b-', /"b-" cannot be part/],
  ['a/b..c', /"b\.\.c" cannot be part/],
  ['a/b___c', /"b___c" cannot be part/],
  ['a/é', /"é" cannot be part/],
  ['-h.io/a', /"-h\.io" is not a host/],
  ['h..io/a', /"h\.\.io" is not a host/],
  ['user:pass@h.io/a', /"h\.io\/a" is not a digest/],
  ['h_.io/a', /"h_\.io" is not a host/],
  ['h.io:0/a', /0 is not a port/],
  ['h.io:65536/a', /65536 is not a port/],
  ['h.io:x/a', /"h\.io:x" is not a host/],
  ['[::1/a', /"\[::1" is not a host/],
  ['[::g]/a', /"\[::g\]" is not a host/],
  [`${'a'.repeat(300)}.io/a`, /is not a host/],
  [`h.io/${'a'.repeat(256)}`, /its repository is 256 characters long; at most 255/],
  ['a'.repeat(2000), /it is 2000 characters long; at most 1024/],
];

for (const [text, message] of malformed) {
  test(`${JSON.stringify(text.slice(0, 80))} (${text.length}) is no reference`, () => {
    throwsError(() => parseReference(text), 'reference-malformed', message);
  });
}

test('a password in front of a host is not repeated in the error', () => {
  for (const text of ['user:secret@h.io/a', 'https://user:secret@h.io/a', 'user:sec@secret@h.io']) {
    assert.throws(
      () => parseReference(text),
      (error) => error instanceof PullError && !`${error.message}${error.hint}`.includes('secret'),
    );
  }
});

test('a digest of another algorithm is not supported', () => {
  throwsError(() => parseReference(`a@sha512:${HEX}${HEX}`), 'unsupported', /is a sha512 digest/);
});

test('a wrong reference comes with a hint what to write instead', () => {
  const hint = (text: string) => {
    try {
      parseReference(text);
    } catch (error) {
      if (error instanceof PullError) return error.hint;
    }
    return undefined;
  };
  assert.equal(hint('https://alpine'), 'Leave out https:// and try again.');
  for (const name of [
    'docker-daemon:NAME:TAG',
    'containers-storage:NAME:TAG',
    'docker-archive:FILE',
    'dir:DIR',
  ])
    assert.ok(hint(name)?.includes(`skopeo copy ${name} oci:DIR:TAG`), name);
  assert.match(hint('oci-layout:x') ?? '', /Write oci:DIR:TAG/);
  assert.equal(hint('ghcr.io/Owner/Name:T'), 'Repositories are lower-case: try owner/name.');
  assert.match(hint(HEX) ?? '', /NAME@sha256:HEX/);
});

const LOCAL_DIGEST = `sha256:${'ab'.repeat(32)}`;
const parse = (text: string) =>
  parseLocalImage(text, (path) => (path.startsWith('/') ? path : `/cwd/${path}`));

test('a prefix makes a name that of a layout: a path, a tag behind the first colon, a digest at the end', () => {
  for (const [text, transport, path, tag, digest] of [
    ['oci:dir', 'oci', '/cwd/dir'],
    ['oci:/a/b:v1', 'oci', '/a/b', 'v1'],
    ['oci-archive:x.tar', 'oci-archive', '/cwd/x.tar'],
    [
      'oci-archive:/x.tar:docker.io/library/alpine:3.20',
      'oci-archive',
      '/x.tar',
      'docker.io/library/alpine:3.20',
    ],
    [`oci:/a@b/c@${LOCAL_DIGEST}`, 'oci', '/a@b/c', undefined, LOCAL_DIGEST],
    [`oci:/a:v1@${LOCAL_DIGEST}`, 'oci', '/a', 'v1', LOCAL_DIGEST],
    ['oci:/with space', 'oci', '/with space'],
  ] as const) {
    const image = parse(text)!;
    assert.deepEqual(
      [image.transport, image.path, image.tag, image.digest],
      [transport, path, tag, digest],
      text,
    );
    assert.deepEqual(parse(formatLocalImage(image)), image, text);
  }
  for (const text of ['alpine', 'docker.io/library/oci:1', 'ocis:1', 'oci', 'oci-archives:x', 'OCI:x'])
    assert.equal(parse(text), undefined, text);
});

test('what Helm calls oci:// is no layout, and the hint says how it is named', () => {
  assert.throws(() => parse('oci://ghcr.io/owner/name'), {
    code: 'reference-malformed',
    hint: /named without oci:\/\//,
  });
  assert.equal(parse('oci:///a/b')?.path, '///a/b');
});

test('a local name without a path, with a tag that cannot be one, or without end is refused', () => {
  for (const text of [
    'oci:',
    'oci::tag',
    'oci-archive:',
    'oci:dir:',
    'oci:dir:-x',
    'oci:dir:a b',
    `oci:${'x'.repeat(5000)}`,
  ])
    assert.throws(() => parse(text), { code: 'reference-malformed', hint: /oci:DIR:TAG/ }, text.slice(0, 20));
});
