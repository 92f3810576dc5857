import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import type { FaultRule } from '../../src/sandbox/faults.js';
import { ANSWER_ROWS, STRANGE_ANSWERS } from '../support/hostile/answers.js';
import { DOCUMENT_ROWS } from '../support/hostile/documents.js';
import { ODD_LAYERS, WRONG_LAYERS } from '../support/hostile/layers.js';
import { LYING_METADATA, METADATA_IMAGES } from '../support/hostile/metadata.js';
import {
  diffIdOf,
  type HostileLayer,
  type ImageRow,
  type LayerRow,
  sampleLayer,
  type TreeRow,
  tarFor,
} from '../support/hostile/row.js';
import { TREES } from '../support/hostile/trees.js';
import type { HostileJob, HostileOutcome } from '../support/hostile-child.js';
import { addLayer, emptyLayout, nameImage } from '../support/layout.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

/** Node with two threads and what a pull holds of small layers; a quarter of a gigabyte of metadata would show. */
const MAX_BYTES = 300e6;

/** What a row must end with. */
interface Expected {
  readonly name: string;
  /** Of the image or tree in which it is. */
  readonly of: string;
  readonly exit: number;
  /** A digest that a warning names. */
  readonly warned?: string;
}

interface Image {
  readonly ref: string;
  /** What stands behind the tag. */
  readonly suffix: string;
  readonly isExported?: boolean;
  /** Tars that the image is not what it says about. */
  readonly lied: readonly Buffer[];
}

/** Images that are pulled into one store, and then the honest one. */
interface Group {
  readonly images: readonly Image[];
  readonly honest: string;
}

const HONEST_LAYERS = 6;

/** Writes the rows into one layout, and keeps what its registry is to answer. */
class Table {
  readonly layout: string;
  readonly faults: FaultRule[] = [];
  readonly expected: Expected[] = [];
  #refs = 0;

  constructor(layout: string) {
    this.layout = layout;
  }

  /** An image for each row. */
  async images(rows: readonly ImageRow[]): Promise<Image[]> {
    const images: Image[] = [];
    for (const { name, exit, suffix = '', write } of rows) {
      const ref = this.#nextRef();
      this.faults.push(...(await write(this.layout, ref)));
      this.expected.push({ name, of: ref, exit });
      images.push({ ref, suffix, lied: [tarFor(ref)] });
    }
    return images;
  }

  /** One image of all these layers, which is pulled without an error. */
  async layers(rows: readonly LayerRow[]): Promise<Image> {
    const ref = this.#nextRef();
    const written: HostileLayer[] = [];
    for (const { name, warns, write } of rows) {
      const one = await write(this.layout, tarFor(name));
      this.faults.push(...(one.faults ?? []));
      this.expected.push({ name, of: ref, exit: 0, ...(warns && { warned: one.layer.digest }) });
      written.push(one);
    }
    this.#name(ref, written);
    return { ref, suffix: '', lied: rows.map(({ name }) => tarFor(name)) };
  }

  /** An image of the layers of all trees that do no harm, which is exported. */
  async exported(rows: readonly TreeRow[]): Promise<Image> {
    const ref = this.#nextRef();
    const tars = rows.flatMap(({ exit, tars }) => (exit === 0 ? tars : []));
    const layers = tars.map(async (tar) => ({
      layer: await addLayer(this.layout, tar, ''),
      diffId: diffIdOf(tar),
    }));
    this.#name(ref, await Promise.all(layers));
    this.expected.push({ name: 'an export of all trees that do no harm', of: ref, exit: 0 });
    return { ref, suffix: '', isExported: true, lied: [] };
  }

  /** These images with an honest one, which has the files that some of them tell lies about. */
  async group(images: readonly Image[]): Promise<Group> {
    const ref = this.#nextRef();
    const tars = images.flatMap(({ lied }) => lied).slice(-HONEST_LAYERS);
    this.#name(ref, await Promise.all(tars.map((tar) => sampleLayer(this.layout, tar, 'zstd:chunked'))));
    return { images, honest: ref };
  }

  #name(ref: string, layers: readonly HostileLayer[]): void {
    const descriptors = layers.map(({ layer }) => layer);
    nameImage(
      this.layout,
      ref,
      descriptors,
      layers.map(({ diffId }) => diffId),
    );
  }

  #nextRef(): string {
    return `row-${++this.#refs}`;
  }
}

/** Stands for all of the machine that is not ours, and is looked at after each row. */
function outsideIn(directory: string): string {
  const outside = join(directory, 'outside');
  for (const name of ['home', 'tmp', 'cwd', 'etc']) mkdirSync(join(outside, name), { recursive: true });
  writeFileSync(join(outside, 'etc/passwd'), 'root\n');
  symlinkSync('etc/passwd', join(outside, 'link'));
  return outside;
}

/** Runs a child over its part of the rows. */
async function run(
  t: TestContext,
  work: string,
  job: Pick<HostileJob, 'group' | 'trees'>,
): Promise<HostileOutcome[]> {
  mkdirSync(work);
  const outside = outsideIn(work);
  const script = join(import.meta.dirname, '../support/hostile-child.js');
  const child = spawn(
    process.execPath,
    [...process.execArgv, script, JSON.stringify({ ...job, work, outside })],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
      cwd: join(outside, 'cwd'),
      env: { ...process.env, HOME: join(outside, 'home'), TMPDIR: join(outside, 'tmp') },
    },
  );
  t.after(() => child.kill('SIGKILL'));
  const outcomes: HostileOutcome[] = [];
  const reader = createInterface({ input: child.stdout });
  reader.on('line', (line) => outcomes.push(JSON.parse(line) as HostileOutcome));
  await Promise.all([once(reader, 'close'), once(child, 'exit')]);
  return outcomes;
}

test('hostile images and answers', async (t) => {
  const table = new Table(emptyLayout(t));
  const halves: Image[][] = [
    [...(await table.images(DOCUMENT_ROWS)), ...(await table.images(ANSWER_ROWS))],
    [
      ...(await table.images(WRONG_LAYERS)),
      ...(await table.images(METADATA_IMAGES)),
      await table.layers(ODD_LAYERS),
      await table.layers(STRANGE_ANSWERS),
      await table.exported(TREES),
      await table.layers(LYING_METADATA),
    ],
  ];
  const groups = await Promise.all(halves.map((images) => table.group(images)));
  const directory = temporaryDirectory(t);
  const trees = writeTrees(directory, table);
  const { host } = await startSandbox(t, { layout: table.layout, faults: table.faults });
  const running = groups.map(({ images, honest }, half) => {
    const asked = images.map(({ ref, suffix, isExported = false }) => ({
      name: ref,
      image: `${host}/${ref}:${ref}${suffix}`,
      isExported,
    }));
    const group = { images: asked, honest: { name: honest, image: `${host}/${honest}:${honest}` } };
    return run(t, join(directory, `half-${half}`), { group, trees: half === 0 ? trees : [] });
  });
  const outcomes = new Map((await Promise.all(running)).flat().map((outcome) => [outcome.name, outcome]));
  for (const { honest } of groups)
    table.expected.push({ name: 'an honest image afterwards', of: honest, exit: 0 });
  for (const { name, of, exit, warned } of table.expected) {
    await t.test(`${name}: exit code ${exit}`, (row) => {
      const outcome = outcomes.get(of);
      assert.ok(outcome !== undefined, 'the process ended before');
      const { said, harm, peakBytes, tookMs } = outcome;
      row.diagnostic(`${(peakBytes / 1e6).toFixed(0)} MB, ${tookMs.toFixed(0)} ms: ${said.slice(0, 200)}`);
      assert.equal(outcome.exit, exit, said);
      assert.deepEqual(harm, []);
      assert.ok(peakBytes < MAX_BYTES, `${peakBytes} bytes`);
      if (warned !== undefined) assert.ok(said.includes(warned), `no warning of ${warned}: ${said}`);
    });
  }
});

/** Writes each tar of the trees into a file, where the child finds it. */
function writeTrees(directory: string, table: Table): HostileJob['trees'] {
  return TREES.map(({ name, exit, tars }, row) => {
    table.expected.push({ name, of: name, exit });
    const paths = tars.map((tar, layer) => {
      const path = join(directory, `${row}-${layer}.tar`);
      writeFileSync(path, tar);
      return path;
    });
    return { name, tars: paths };
  });
}
