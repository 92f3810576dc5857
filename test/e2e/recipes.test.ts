import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, test } from 'node:test';
import { type Daemon, skipUnlessRoot, startContainerd, startDockerd } from '../support/daemons.js';
import { emptyLayout, noise, tarOf, writeTars } from '../support/layout.js';
import { OPTIONAL, skipUnlessThere, ZPULL } from '../support/programs.js';
import { startSandbox } from '../support/sandbox.js';
import { readSource } from '../support/sources.js';
import { type Lifetime, temporaryDirectory } from '../support/temporary.js';

/** A shell block of a page. */
interface Block {
  readonly code: string;
  /** Behind `run`: the programs that it needs, or `root`. Undefined without `run`. */
  readonly needs: readonly string[] | undefined;
}

interface Section {
  readonly name: string;
  readonly blocks: readonly Block[];
}

function sectionsOf(path: string): Section[] {
  return readSource(path)
    .split(/^## /m)
    .map((section) => ({
      name: `${path}, ${section.slice(0, section.indexOf('\n'))}`,
      blocks: [...section.matchAll(/^```sh( run)?([a-z ]*)\n(.*?)^```$/gms)].map(([, run, needs, code]) => ({
        code: code!,
        needs: run === undefined ? undefined : needs!.split(' ').filter(Boolean),
      })),
    }))
    .filter(({ blocks }) => blocks.length > 0);
}

const SECTIONS = ['README.md', 'docs/recipes.md'].flatMap(sectionsOf);

/** Daemons of the clients that have one. */
const DAEMONS: Readonly<Record<string, readonly [string, (t: Lifetime) => Promise<Daemon | undefined>]>> = {
  docker: ['dockerd', startDockerd],
  ctr: ['containerd', startContainerd],
};

const layout = emptyLayout({ after });
const kept = noise(1, 100_000);
for (const [row, tag] of ['v1', 'v2', 'latest'].entries()) {
  const files = { 'etc/os-release': Buffer.from('ID=sample\n'), kept, changed: noise(row + 2, 50_000) };
  await writeTars({ after }, layout, tag, [tarOf(files)]);
}

/** Where the names of the pages lead to the sandbox, the command is on PATH and every program has its files in `place`. */
async function environment(t: Lifetime, place: string): Promise<NodeJS.ProcessEnv> {
  const { host } = await startSandbox(t, { layout });
  const file = (name: string, lines: readonly string[]) => {
    const path = join(place, name);
    writeFileSync(path, `${lines.join('\n')}\n`);
    return path;
  };
  const registries = ['registry.example', 'docker.io'].flatMap((prefix) => [
    '[[registry]]',
    `prefix = "${prefix}"`,
    `location = "${host}"`,
    'insecure = true',
  ]);
  const storage = [
    '[storage]',
    'driver = "vfs"',
    `graphroot = "${place}/root"`,
    `runroot = "${place}/runroot"`,
  ];
  mkdirSync(join(place, 'bin'));
  const quoted = [process.execPath, ...ZPULL].map((word) => `'${word}'`).join(' ');
  chmodSync(file('bin/zpull', ['#!/bin/sh', `exec ${quoted} "$@"`]), 0o755);
  return {
    ...process.env,
    PATH: `${join(place, 'bin')}${delimiter}${process.env['PATH']}`,
    ZPULL_STORE: join(place, 'store'),
    CONTAINERS_REGISTRIES_CONF: file('registries.conf', registries),
    CONTAINERS_STORAGE_CONF: file('storage.conf', storage),
  };
}

async function runBlock(code: string, cwd: string, env: NodeJS.ProcessEnv): Promise<void> {
  const child = spawn('bash', ['-euo', 'pipefail', '-c', code], {
    cwd,
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const closed = once(child, 'close');
  const stderr = await text(child.stderr);
  assert.deepEqual(await closed, [0, null], `${code}${stderr}`);
}

/** Blocks of a section that need the same, by what they need. */
function runnableBlocks(blocks: readonly Block[]): Map<string, Block[]> {
  const groups = new Map<string, Block[]>();
  for (const block of blocks) {
    if (block.needs === undefined) continue;
    const needs = block.needs.join(' ');
    groups.set(needs, [...(groups.get(needs) ?? []), block]);
  }
  return groups;
}

for (const { name, blocks } of SECTIONS) {
  for (const [needs, group] of runnableBlocks(blocks)) {
    const words = needs.split(' ').filter(Boolean);
    const programs = words.filter((word) => word !== 'root');
    const all = [...programs, ...programs.flatMap((program) => DAEMONS[program]?.[0] ?? [])];
    const skip = words.includes('root') ? skipUnlessRoot(...all) : skipUnlessThere(...all);
    const title = `what a page shows works: ${name}${needs && ` (needs ${needs})`}`;
    test(title, { skip }, async (t) => {
      const place = temporaryDirectory(t);
      let env = await environment(t, place);
      for (const program of programs) {
        const daemon = DAEMONS[program];
        if (daemon === undefined) continue;
        const started = await daemon[1](t);
        if (started === undefined) return t.skip(`${OPTIONAL}${daemon[0]} does not start here`);
        env = { ...env, ...started.env };
      }
      const cwd = join(place, 'cwd');
      mkdirSync(cwd);
      for (const { code } of group) await runBlock(code, cwd, env);
    });
  }
}

test('every shell block of a page is shell, and those that need nothing are run', () => {
  const blocks = SECTIONS.flatMap((section) => section.blocks);
  for (const { code } of blocks) {
    const { status, stderr } = spawnSync('bash', ['-n', '-c', code], { encoding: 'utf8' });
    assert.equal(status, 0, `${code}${stderr}`);
  }
  assert.ok(blocks.filter(({ needs }) => needs?.length === 0).length >= 6);
});
