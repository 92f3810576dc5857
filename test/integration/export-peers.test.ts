import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { exportLayers, exportTar } from '../../src/index.js';
import { applyLayers } from '../support/apply-layers.js';
import { listDirectory, listTar } from '../support/listing.js';
import { skipUnless } from '../support/programs.js';
import { pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const isRoot = process.getuid?.() === 0;
const skip = skipUnless('tar') || (isRoot ? false : 'devices and owners need root');

/** An image of the fixture layout in a store, and the file system that GNU tar makes of its layers. */
async function prepare(t: TestContext, tag: string) {
  const registry = await startSandbox(t);
  const directory = temporaryDirectory(t);
  const store = join(directory, 'store');
  const { result } = await pull(`${registry.host}/a:${tag}`, { store, platform: 'linux/amd64' });
  const diffIds = result.layers.map(({ diffId }) => diffId);
  const tars = await exportLayers({ store, diffIds, directory: join(directory, 'layers') });
  const expected = join(directory, 'expected');
  applyLayers(tars, expected);
  return { store, diffIds, tars, directory, expected: listDirectory(expected) };
}

/** Compares listings. Directories that tar touched after it had set their times, or made up, have the time of the test. */
function assertSame(actual: readonly string[], expected: readonly string[], startedMs: number): void {
  const fieldsOf = (line: string) => line.split(' | ');
  const isOfNow = (line: string) => Number(fieldsOf(line)[4]) * 1000 >= startedMs - 1000;
  const now = new Set(expected.filter(isOfNow).map((line) => fieldsOf(line)[0]));
  assert.ok(now.size < expected.length / 2);
  const comparable = (lines: readonly string[]) =>
    lines.map((line) => (now.has(fieldsOf(line)[0]) ? fieldsOf(line).toSpliced(4, 1).join(' | ') : line));
  assert.deepEqual(comparable(actual), comparable(expected));
}

for (const tag of ['chunked-v1', 'chunked-v2']) {
  test(`the tar of ${tag} holds what tar -x makes of its layers, and unpacks to it`, { skip }, async (t) => {
    const startedMs = Date.now();
    const { store, diffIds, directory, expected } = await prepare(t, tag);
    const file = join(directory, 'all.tar');
    await exportTar({ store, diffIds, file });
    const unpacked = join(directory, 'unpacked');
    mkdirSync(unpacked);
    execFileSync('tar', ['-xpf', file, '-C', unpacked, '--xattrs', '--xattrs-include=*', '--numeric-owner']);
    assert.ok(expected.length > 50);
    assertSame(listDirectory(unpacked), expected, startedMs);
    const listed = listTar(readFileSync(file)).filter((line) => !line.startsWith(' | '));
    assert.equal(listed.length, expected.length);
  });
}
