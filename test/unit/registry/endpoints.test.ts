import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseReference } from '../../../src/format/reference.js';
import {
  endpointsOf,
  expandShortName,
  type Mirror,
  type Registries,
  type RegistryRule,
} from '../../../src/registry/registries-conf.js';

const DIGEST = `@sha256:${'ab'.repeat(32)}`;

function rule(prefix: string, more: Partial<RegistryRule> = {}): RegistryRule {
  return { prefix, location: prefix, insecure: false, blocked: false, mirrors: [], file: 'r.conf', ...more };
}

function mirror(location: string, more: Partial<Mirror> = {}): Mirror {
  return { location, insecure: false, pullFromMirror: 'all', ...more };
}

function registries(rules: RegistryRule[], more: Partial<Registries> = {}): Registries {
  return { rules, aliases: new Map(), searched: [], ...more };
}

/** `host/repository` of each endpoint. */
function places(name: string, ...rules: RegistryRule[]): string[] {
  const endpoints = endpointsOf(parseReference(name), registries(rules));
  return endpoints.map(({ host, repository }) => `${host}/${repository}`);
}

test('without a rule an image has only its own registry', () => {
  assert.deepEqual(endpointsOf(parseReference('example.com/a/b'), undefined), [
    { host: 'example.com', repository: 'a/b', insecure: false },
  ]);
  assert.deepEqual(places('example.com/a/b', rule('example.org')), ['example.com/a/b']);
});

test('mirrors come first and in order, and what stands behind the prefix stays', () => {
  const hub = rule('docker.io', { mirrors: [mirror('m1:5000'), mirror('m2/cache', { insecure: true })] });
  assert.deepEqual(endpointsOf(parseReference('alpine'), registries([hub])), [
    { host: 'm1:5000', repository: 'library/alpine', insecure: false },
    { host: 'm2', repository: 'cache/library/alpine', insecure: true },
    { host: 'docker.io', repository: 'library/alpine', insecure: false },
  ]);
});

test('the longest prefix counts, and it ends where a part of the path ends', () => {
  const rules = [
    rule('example.com', { location: 'short' }),
    rule('example.com/team', { location: 'long/x' }),
    rule('example.com/te', { location: 'wrong' }),
  ];
  assert.deepEqual(places('example.com/team/app', ...rules), ['long/x/app']);
  assert.deepEqual(places('example.com/teams/app', ...rules), ['short/teams/app']);
  assert.deepEqual(places('example.com:5000/team/app', ...rules), ['example.com:5000/team/app']);
});

test('an asterisk stands for all hosts below a domain, whose names stay unless there is a location', () => {
  const below = rule('*.example.com', { location: undefined, mirrors: [mirror('m')] });
  assert.deepEqual(places('a.b.example.com/x', below), ['m/x', 'a.b.example.com/x']);
  assert.deepEqual(places('example.com/x', below), ['example.com/x']);
  assert.deepEqual(places('notexample.com/x', below), ['notexample.com/x']);
  assert.deepEqual(places('a.example.com/x', below, rule('a.example.com', { location: 'own' })), ['own/x']);
});

test('mirrors for digests or for tags only are used for those only', () => {
  const both = rule('example.com', {
    mirrors: [
      mirror('digests', { pullFromMirror: 'digest-only' }),
      mirror('tags', { pullFromMirror: 'tag-only' }),
    ],
  });
  assert.deepEqual(places('example.com/x:1', both), ['tags/x', 'example.com/x']);
  assert.deepEqual(places(`example.com/x:1${DIGEST}`, both), ['digests/x', 'example.com/x']);
});

test('a blocked registry and a location that is none are refused', () => {
  assert.throws(() => places('example.com/x', rule('example.com', { blocked: true })), /blocked by r\.conf/);
  for (const location of ['http://m', 'm?x', '/m', 'm@x', 'm:65536/x', '1.2.3.4.5/x']) {
    const wrong = rule('example.com', { mirrors: [mirror(location)] });
    assert.throws(() => places('example.com/x', wrong), /r\.conf makes example\.com\/x to/, location);
  }
});

test('a short name is what its alias says, or in the one registry to search, or docker’s', () => {
  const aliases = new Map([['fedora', 'registry.fedoraproject.org/fedora']]);
  const one = registries([], { aliases, searched: ['example.com'] });
  const several = registries([], { aliases, searched: ['example.com', 'docker.io'] });
  const expand = (name: string, from: Registries | undefined) =>
    parseReference(name, (short) => expandShortName(short, from));
  assert.equal(expand('fedora:41', several).host, 'registry.fedoraproject.org');
  assert.equal(expand('fedora:41', several).tag, '41');
  assert.deepEqual(expand('a/b', one), { host: 'example.com', repository: 'a/b', tag: 'latest' });
  assert.equal(expand('localhost/a', one).host, 'localhost');
  assert.throws(() => expand('alpine', several), /could be one of example\.com\/alpine, docker\.io\/alpine/);
  const hub = registries([], { searched: ['docker.io'] });
  for (const from of [undefined, registries([]), hub])
    assert.equal(expand('alpine', from).repository, 'library/alpine');
});
