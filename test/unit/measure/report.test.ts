import assert from 'node:assert/strict';
import { test } from 'node:test';
import { verdictOf } from '../../../src/measure/verdict.js';
import { machine, measurement, report } from '../../support/bench-report.js';
import { readSource } from '../../support/sources.js';

test('docs/measuring.md names every field of a report', () => {
  const full = report([
    measurement('network/c16', [1]),
    ...machine({ decode: 1, hash: 1, write: 1, together: 1 }),
    measurement('pull/w2/c16', [1], { cpuSeconds: 1 }),
  ]);
  full.verdict = verdictOf(full);
  full.peers.push({ name: '', version: null, missing: null, command: '', leaves: '', proves: '' });
  full.errors.push({ measurement: '', code: 'peer-failed', message: '', hint: '' });
  const page = readSource('docs/measuring.md');
  const missing = [...fieldsOf(full)].filter((field) => !page.includes(`\`${field}\``));
  assert.deepEqual(missing, []);
});

/** The names of all fields, nested ones included. */
function fieldsOf(value: unknown): Set<string> {
  const names = new Set<string>();
  const visit = (each: unknown): void => {
    if (typeof each !== 'object' || each === null) return;
    for (const [name, inner] of Object.entries(each)) {
      if (!Array.isArray(each)) names.add(name);
      visit(inner);
    }
  };
  visit(value);
  return names;
}
