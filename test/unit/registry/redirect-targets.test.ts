import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RedirectTargets, type SharedTargets } from '../../../src/registry/redirect-targets.js';

const BLOB = 'http://registry/blob';
const OLD = new URL('http://storage/old');
const NEW = new URL('http://storage/new');

/** RedirectTargets whose main thread gives these answers, and the reports that it received. */
function sharing(...answers: (URL | 'renew' | undefined)[]) {
  const told: unknown[] = [];
  const shared: SharedTargets = {
    expired: async (_, target) => {
      told.push(['expired', target?.href]);
      return answers.shift();
    },
    renewed: (_, target) => told.push(['renewed', target?.href]),
    failed: (_, target) => told.push(['failed', target.href]),
  };
  return { targets: new RedirectTargets(shared), told };
}

test('a target that another thread found is used, and not reported again', async () => {
  const { targets, told } = sharing(NEW);
  targets.found(BLOB, OLD);
  assert.equal(await targets.expired(BLOB, OLD), false);
  assert.equal(await targets.get(BLOB), NEW);
  assert.deepEqual(told, [['expired', OLD.href]]);
});

test('the leading range asks, the others wait, and its target is reported', async () => {
  const { targets, told } = sharing('renew');
  targets.found(BLOB, OLD);
  assert.equal(await targets.expired(BLOB, OLD), true);
  const waiting = targets.get(BLOB);
  targets.found(BLOB, NEW);
  assert.equal(await waiting, NEW);
  assert.deepEqual(told.slice(1), [['renewed', NEW.href]]);
});

test('after another thread asked in vain the range asks itself, and reports nothing', async () => {
  const { targets, told } = sharing(undefined);
  targets.found(BLOB, OLD);
  assert.equal(await targets.expired(BLOB, OLD), true);
  targets.renewed(BLOB);
  assert.equal(await targets.get(BLOB), undefined);
  assert.deepEqual(told, [['expired', OLD.href]]);
});

test('a lead that arrives after a range found a target is returned with that target', async () => {
  const { targets, told } = sharing('renew');
  targets.found(BLOB, OLD);
  const expired = targets.expired(BLOB, OLD);
  targets.found(BLOB, NEW);
  assert.equal(await expired, false);
  assert.deepEqual(told.slice(1), [['renewed', NEW.href]]);
});

test('an expired target is not cached again when an earlier request succeeds', async () => {
  const { targets } = sharing(NEW);
  targets.found(BLOB, OLD);
  await targets.expired(BLOB, OLD);
  targets.found(BLOB, OLD);
  assert.equal(await targets.get(BLOB), NEW);
});

test('only the failed target is dropped', async () => {
  const { targets, told } = sharing();
  targets.found(BLOB, NEW);
  targets.forget(BLOB, OLD);
  assert.equal(await targets.get(BLOB), NEW);
  targets.forget(BLOB, NEW);
  assert.equal(await targets.get(BLOB), undefined);
  assert.deepEqual(told, [['failed', NEW.href]]);
});

test('a range that finds no target leads, and the others wait for what it finds', async () => {
  const { targets, told } = sharing('renew');
  assert.deepEqual(await targets.find(BLOB), { leads: true });
  const other = targets.find(BLOB);
  targets.found(BLOB, NEW);
  assert.deepEqual(await other, { target: NEW, leads: false });
  assert.deepEqual(told, [
    ['expired', undefined],
    ['renewed', NEW.href],
  ]);
});

test('a target of another thread is used without asking the registry', async () => {
  const { targets } = sharing(NEW);
  assert.deepEqual(await targets.find(BLOB), { target: NEW, leads: false });
});

test('targets that are refused at their second use, twice in a row, are valid for one request', async () => {
  const { targets } = sharing('renew', 'renew', 'renew', 'renew');
  const use = async (target: URL, reuse: boolean) => {
    targets.found(BLOB, target);
    await targets.get(BLOB);
    if (reuse) targets.found(BLOB, target);
    await targets.expired(BLOB, target);
    return targets.areSingleUse;
  };
  const url = (i: number) => new URL(`http://storage/${i}`);
  assert.equal(await use(url(1), false), false);
  assert.equal(await use(url(2), true), false, 'one that was good for two has expired');
  assert.equal(await use(url(3), false), false);
  assert.equal(await use(url(4), false), true);
});
