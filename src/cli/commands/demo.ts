import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { formatBytes, formatCount, formatDuration, formatShare } from '../../api/figures.js';
import { type PullResult, pullImage } from '../../api/pull.js';
import { writeImage } from '../../sandbox/image-writer.js';
import { DEFAULT_LAYER_SHARES, treeTars } from '../../sandbox/sample-tree.js';
import { jsonLine } from '../format-text.js';
import type { OptionValues } from '../options.js';
import { createRenderer } from '../progress/renderer.js';
import { untilSignal } from '../signals.js';

/** About 64 MiB at a mean of 50 KiB: enough for several requests, small enough for any machine. */
const FILES = 1050;
const SEED = 1;

interface Stage {
  readonly layoutDir: string;
  readonly store: string;
  readonly options: OptionValues;
  readonly signal: AbortSignal;
  readonly print: (line: string) => void;
}

/**
 * `zpull demo`: writes a sample image and its next version, serves them, pulls one after the other,
 * and prints what the second pull found in the store. Everything is in a temporary directory that
 * is removed at the end.
 */
export async function runDemo(_words: readonly string[], options: OptionValues): Promise<number> {
  const directory = mkdtempSync(join(tmpdir(), 'zpull-demo-'));
  const print = (line: string): void => {
    if (options.json !== true) process.stdout.write(`${line}\n`);
  };
  try {
    const pulls = await untilSignal((signal) =>
      play({
        layoutDir: join(directory, 'layout'),
        store: options.store ?? join(directory, 'store'),
        options,
        signal,
        print,
      }),
    );
    if (options.json === true) process.stdout.write(jsonLine({ pulls }));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  print(`cleaned   ${directory} is gone`);
  return 0;
}

async function play(stage: Stage): Promise<PullResult[]> {
  await writeVersions(stage);
  const registry = await startServeChild(stage.layoutDir);
  try {
    stage.print(`serving   both on ${registry.address}`);
    const image = `${registry.address}/demo/sample`;
    return [
      await pullVersion(stage, `${image}:v1`, 'v1'),
      await pullVersion(stage, `${image}:v2`, 'v2'),
      await pullVersion(stage, `${image}:v2`, 'v2 once more'),
    ];
  } finally {
    await registry.stop();
  }
}

async function writeVersions({ layoutDir, options, signal, print }: Stage): Promise<void> {
  const fileCount = options.files ?? FILES;
  for (const version of [1, 2] as const) {
    const { tarBytes, blobBytes } = await writeImage({
      layoutDir,
      ref: `v${version}`,
      tars: treeTars({ seed: SEED, fileCount, layerShares: DEFAULT_LAYER_SHARES, version }),
      onProgress: () => signal.throwIfAborted(),
    });
    const sizes = `${formatBytes(tarBytes)}, ${formatBytes(blobBytes)} compressed`;
    const what = version === 1 ? `a sample image of ${formatCount(fileCount, 'file')}` : 'its next version';
    print(`wrote     v${version}, ${what}: ${sizes}`);
  }
}

async function pullVersion(stage: Stage, image: string, name: string): Promise<PullResult> {
  const { store, options, signal, print } = stage;
  const renderer = await createRenderer(options);
  try {
    const result = await pullImage(image, {
      store,
      // The sample is for amd64, whatever this machine is.
      platform: 'linux/amd64',
      plainHttp: true,
      signal,
      onEvent: renderer.onEvent,
    });
    renderer.end();
    print(`pulled    ${name}: ${outcome(result)}`);
    return result;
  } catch (error) {
    renderer.end();
    throw error;
  }
}

function outcome({ layers, fetchedBytes, reusedBytes, requests, durationMs }: PullResult): string {
  const blobBytes = layers.reduce((sum, layer) => sum + layer.sizeBytes, 0);
  const tarBytes = layers.reduce((sum, layer) => sum + layer.tarBytes, 0);
  const fetched = `fetched ${formatBytes(fetchedBytes)} (${formatShare(fetchedBytes, blobBytes)} of its blobs) in ${formatCount(requests, 'request')}`;
  const reused = `reused ${formatBytes(reusedBytes)} (${formatShare(reusedBytes, tarBytes)} of its files)`;
  return `${fetched}, ${reused}; verified in ${formatDuration(durationMs)}`;
}

interface ServeChild {
  /** `127.0.0.1:PORT`. */
  readonly address: string;
  /** Ends the process; resolves when it is gone. */
  stop(): Promise<void>;
}

/**
 * Starts `zpull serve` in a process of its own, so that it takes no time from the pulls; resolves
 * when it listens.
 * @throws Error when it ends before it listens
 */
async function startServeChild(layout: string): Promise<ServeChild> {
  const child = spawn(process.execPath, [process.argv[1]!, 'serve', `oci:${layout}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'close');
  const stop = async (): Promise<void> => {
    child.kill('SIGTERM');
    await ended;
  };
  const address = await Promise.race([firstLine(child), ended.then(() => undefined)]);
  if (address === undefined) throw new Error('the registry of the demo ended before it listened');
  return { address, stop };
}

async function firstLine({ stdout }: ChildProcess): Promise<string | undefined> {
  for await (const line of createInterface({ input: stdout! })) return line;
  return undefined;
}
