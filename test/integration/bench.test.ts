import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { describe, type TestContext, test } from 'node:test';
import type { Report } from '../../src/measure/report.js';
import type { FaultRule } from '../../src/sandbox/faults.js';
import type { SandboxRegistry } from '../../src/sandbox/registry-server.js';
import { report as madeUpReport, measurement } from '../support/bench-report.js';
import { keptSample } from '../support/layers/sample-image.js';
import { ZPULL } from '../support/programs.js';
import { startSandbox } from '../support/sandbox.js';
import { skipUnlessMount, smallDisk } from '../support/small-disk.js';
import { temporaryDirectory } from '../support/temporary.js';

/** The sample image, `v1` and `v2`, of so many files of 33 KB in the registry. */
async function registryOf(
  t: TestContext,
  fileCount: number,
  options: Parameters<typeof startSandbox>[1] = {},
): Promise<{ registry: SandboxRegistry; image: string }> {
  const { layout } = await keptSample({ seed: 1, fileCount, layerShares: [0.6, 0.4], version: 1 });
  const registry = await startSandbox(t, { layout, ...options });
  return { registry, image: `${registry.host}/some/image:sample` };
}

interface Bench {
  readonly child: ChildProcess;
  /** The directory for stores, which the command makes. */
  readonly store: string;
  /** What `--json` wrote. */
  readonly report: () => Report;
  readonly ended: Promise<{ exitCode: number | null; stdout: string; stderr: string }>;
}

interface BenchOptions {
  readonly store?: string;
  readonly path?: string;
  readonly input?: string;
  readonly onStderr?: (text: string) => void;
}

/** Starts the real command; its store and report are in a directory of their own. */
function startBench(t: TestContext, args: readonly string[], options: BenchOptions = {}): Bench {
  const directory = temporaryDirectory(t);
  const store = options.store ?? join(directory, 'store');
  const file = join(directory, 'report.json');
  const words = ['bench', ...args, '--store', store, '--json', file, '--platform', 'linux/amd64'];
  const path = [...(options.path === undefined ? [] : [options.path]), process.env['PATH']].join(delimiter);
  const child = spawn(process.execPath, [...ZPULL, ...words], {
    env: { ...process.env, PATH: path },
    stdio: 'pipe',
  });
  child.stdin.end(options.input);
  t.after(() => child.kill('SIGKILL'));
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => options.onStderr?.(chunk));
  const ended = Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]).then(
    ([stdout, stderr, [exitCode]]) => ({ exitCode: exitCode as number | null, stdout, stderr }),
  );
  return { child, store, report: () => JSON.parse(readFileSync(file, 'utf8')) as Report, ended };
}

/** Most attempts at a verdict. */
const MAX_TRIES = 3;

/**
 * Runs the command until the report has what is expected: a machine that is busy at the wrong moment
 * can make a single run of anything take longest.
 */
async function benchUntil(
  t: TestContext,
  args: readonly string[],
  isExpected: (verdict: Report['verdict']) => boolean,
) {
  for (let tries = 1; ; tries++) {
    const bench = startBench(t, args);
    const { exitCode, stdout, stderr } = await bench.ended;
    assert.equal(exitCode, 0, stderr);
    const report = bench.report();
    if (tries === MAX_TRIES || isExpected(report.verdict)) return { ...bench, report, stdout, tries };
  }
}

function idsOf({ measurements }: Report): string[] {
  return measurements.map(({ id }) => id);
}

/** A directory for PATH with a program of this name. */
function fakeProgram(t: TestContext, name: string, script: string): string {
  const directory = temporaryDirectory(t);
  writeFileSync(join(directory, name), `#!/bin/sh\n${script}`);
  chmodSync(join(directory, name), 0o755);
  return directory;
}

const ONE_SETTING = ['--workers', '2', '--connections', '16', '--runs', '1'];

// Most of them wait for a network that is made slow: at the same time they take a third of the time.
describe('zpull bench', { concurrency: 4 }, () => {
  test('on loopback everything is measured, manifests are requested once, and the processor is the limit', async (t) => {
    const { registry, image } = await registryOf(t, 90);
    const page = join(temporaryDirectory(t), 'bench.html');
    const args = [image, ...ONE_SETTING, '--html', page];
    const { report, stdout, store, tries } = await benchUntil(
      t,
      args,
      (verdict) => verdict?.bound === 'processor',
    );
    assert.deepEqual([report.complete, report.errors], [true, []]);
    const html = readFileSync(page, 'utf8');
    assert.ok(
      report.measurements.every(({ wallSeconds }) => html.includes(`<data value="${wallSeconds.median}">`)),
    );
    assert.ok(html.includes('id="throughput"') && !html.includes('not complete'));
    const works = ['decode', 'hash', 'write'].flatMap((work) => [
      `machine/${work}/one`,
      `machine/${work}/all`,
    ]);
    const together = idsOf(report).includes('machine/together/one') ? ['machine/together/one'] : [];
    assert.deepEqual(idsOf(report), [
      'network/c16',
      ...works,
      ...together,
      'machine/together/all',
      'pull/w2/c16',
      'unchanged',
      'export',
    ]);
    for (const { id, runs, wallSeconds, bytes } of report.measurements) {
      assert.ok(runs.length === 1 && wallSeconds.median > 0 && (bytes > 0 || id === 'unchanged'), id);
    }
    const manifests = registry.requests.filter(({ path }) => path.includes('/manifests/'));
    assert.deepEqual(
      manifests.map(({ method }) => method),
      Array.from({ length: tries }, () => 'GET'),
    );
    assert.equal(report.verdict?.bound, 'processor');
    assert.match(stdout, /The processor is the limit/);
    assert.ok(!existsSync(store));
  });

  test('at 50 ms and 2 MB/s a connection more connections are recommended, with the reason', async (t) => {
    const { image } = await registryOf(t, 300, { latencyMs: 50, ratePerConnectionBytes: 2e6 });
    const advice =
      /16 connections are right: the network gives [\d.]+ MB\/s to 1 connection, [\d.]+ MB\/s to 16, as each connection has a limit of its own/;
    const args = [image, '--workers', '2', '--connections', '1,16', '--runs', '1'];
    const { report, stdout } = await benchUntil(
      t,
      args,
      (verdict) => verdict?.best.connections === 16 && advice.test(verdict.advice[0] ?? ''),
    );
    assert.equal(report.verdict?.best.connections, 16, stdout);
    assert.match(report.verdict.advice[0] ?? '', advice);
    assert.match(stdout, /16 connections are right/);
  });

  test('with --limit-rate the network is the limit, and the option is named', async (t) => {
    const { image } = await registryOf(t, 300);
    const args = [image, ...ONE_SETTING, '--limit-rate', '2M'];
    const { report, stdout } = await benchUntil(t, args, (verdict) => verdict?.bound === 'network');
    const { verdict, settings } = report;
    assert.deepEqual([verdict?.bound, settings.limitRate], ['network', 2 * 2 ** 20], stdout);
    assert.match(
      stdout.replaceAll(/\s+/g, ' '),
      /The network is the limit: .* as --limit-rate allows 2\.1 MB\/s/,
    );
  });

  test('an update is measured from an older image', async (t) => {
    const { image } = await registryOf(t, 30);
    const bench = startBench(t, [image, '--stage', 'update', '--from', image, '--runs', '1']);
    const { exitCode, stdout, stderr } = await bench.ended;
    assert.equal(exitCode, 0, stderr);
    assert.deepEqual(idsOf(bench.report()), ['update']);
    assert.match(stdout, /Verdict: none, it needs --stage all/);
  });

  test('--fail-if-slower ends with 9 when runs are slower beyond noise', async (t) => {
    const { image } = await registryOf(t, 30);
    const earlier = join(temporaryDirectory(t), 'earlier.json');
    const quick = measurement('network/c1', [1e-6, 1.1e-6, 1.2e-6, 1.3e-6], { bytes: 0 });
    writeFileSync(earlier, JSON.stringify(madeUpReport([quick])));
    const args = [image, '--stage', 'network', '--connections', '1', '--runs', '4', '--compare', earlier];
    const { exitCode, stdout, stderr } = await startBench(t, [...args, '--fail-if-slower', '50']).ended;
    assert.equal(exitCode, 9, stderr);
    assert.match(stdout, /BEFORE +NOW +RATIO\nnetwork, 1 connection .* slower\n/);
    assert.match(stderr, /slower by more than 50 %: network, 1 connection/);
  });

  test('SIGINT prints and writes what was measured, ends the commands that run, and removes all stores', async (t) => {
    const { image } = await registryOf(t, 90, { rateBytes: 4e6 });
    const bench: Bench = startBench(t, [image, '--stage', 'pull', '--workers', '2', '--connections', '16'], {
      onStderr: (line) => {
        if (line.includes('run 2 of 5')) setTimeout(() => bench.child.kill('SIGINT'), 300);
      },
    });
    const { exitCode, stdout, stderr } = await bench.ended;
    assert.equal(exitCode, 130, stderr);
    const { complete, measurements } = bench.report();
    assert.deepEqual(
      [complete, measurements.map(({ id, runs }) => [id, runs.length])],
      [false, [['pull/w2/c16', 1]]],
    );
    assert.match(stdout, /pull, 2 workers, 16 conn\. .*This is not complete/s);
    assert.deepEqual([existsSync(bench.store), processesWith(bench.store)], [false, []]);
  });

  test('what SIGKILL leaves goes with the next call, and SIGHUP leaves nothing', async (t) => {
    const { image } = await registryOf(t, 90, { rateBytes: 4e6 });
    const store = temporaryDirectory(t);
    const left: string[][] = [];
    for (const signal of ['SIGKILL', 'SIGHUP'] as const) {
      const bench: Bench = startBench(t, [image, '--stage', 'pull', ...ONE_SETTING], {
        store,
        onStderr: (line) => {
          if (line.includes('run 1 of 1')) setTimeout(() => bench.child.kill(signal), 200);
        },
      });
      await once(bench.child, 'exit');
      // The command that a killed benchmark had started.
      for (const pid of pidsWith(store)) process.kill(pid, 'SIGKILL');
      await bench.ended;
      left.push(readdirSync(store));
    }
    assert.deepEqual([left[0]?.length, left[1]], [1, []]);
  });

  test('a registry that begins to answer 429 is told, the rest goes on, and what was measured is kept', async (t) => {
    // The plan of the first pull takes 2 requests, its contents at least one.
    const faults: FaultRule[] = [
      { match: { path: '/blobs/', nth: [8, 10_000] }, action: { retryAfter: { status: 429, seconds: 600 } } },
    ];
    const { image } = await registryOf(t, 30, { faults });
    const bench = startBench(t, [image, '--stage', 'network', '--connections', '1,2', '--runs', '3']);
    const { exitCode, stdout, stderr } = await bench.ended;
    assert.equal(exitCode, 5, stderr);
    const { measurements, errors, complete } = bench.report();
    assert.equal(complete, true);
    assert.equal(measurements[0]?.id, 'network/c1');
    assert.ok(
      errors.length >= 1 && errors.every(({ code }) => code === 'network-hopeless'),
      JSON.stringify(errors),
    );
    assert.match(stdout, /Not measured:\n- network\/c\d: .* asks to wait too long/);
    assert.ok(!existsSync(bench.store));
  });

  test('a registry that fails three times in a row is not asked again', async (t) => {
    const faults: FaultRule[] = [
      { match: { path: '/blobs/', nth: [6, 10_000] }, action: { retryAfter: { status: 429, seconds: 600 } } },
    ];
    const { registry, image } = await registryOf(t, 30, { faults });
    const grid = ['--connections', '1,2,3,4,5,6,7', '--runs', '1'];
    const bench = startBench(t, [image, '--stage', 'network', ...grid]);
    const { exitCode, stderr } = await bench.ended;
    assert.equal(exitCode, 5, stderr);
    const messages = bench.report().errors.map(({ message }) => message);
    assert.deepEqual(
      messages.map((message) => message.startsWith('not tried, as others before it failed: ')),
      messages.map((_, i) => i >= 3),
    );
    assert.ok(messages.length > 3);
    const refused = registry.requests.filter(({ status }) => status === 429);
    assert.ok(refused.length < 30, `${refused.length} requests were refused`);
  });

  test('a registry that asks to wait is a doubt beside the figure', async (t) => {
    const faults: FaultRule[] = [
      { match: { path: '/blobs/', nth: 5 }, action: { retryAfter: { status: 429, seconds: 1 } } },
    ];
    const { image } = await registryOf(t, 30, { faults });
    const bench = startBench(t, [image, '--stage', 'network', '--connections', '1', '--runs', '2']);
    const { exitCode, stderr } = await bench.ended;
    assert.equal(exitCode, 0, stderr);
    assert.match(bench.report().measurements[0]?.doubts.join() ?? '', /the registry asked to wait/);
  });

  test('a program that fails half-way is told, and the others are measured', async (t) => {
    const { image } = await registryOf(t, 30);
    const script =
      'case "$1" in --version) echo skopeo version 0;; *) mkdir "$directory/layout"; echo half >"$directory/layout/blob"; echo connection lost >&2; exit 1;; esac';
    const args = [image, '--stage', 'pull', ...ONE_SETTING, '--against', 'skopeo,docker,curl'];
    const bench = startBench(t, args, { path: fakeProgram(t, 'skopeo', script) });
    const { exitCode, stdout, stderr } = await bench.ended;
    assert.equal(exitCode, 0, stderr);
    const { measurements, peers, errors } = bench.report();
    assert.deepEqual(
      errors.map(({ measurement, code, message }) => [measurement, code, message]),
      [['peer/skopeo', 'peer-failed', 'skopeo ended with exit code 1: connection lost']],
    );
    assert.ok(measurements.some(({ id }) => id === 'peer/zpull'));
    const [skopeo, docker, curl] = peers;
    assert.deepEqual([skopeo?.version, skopeo?.missing], ['skopeo version 0', null]);
    assert.equal(typeof docker?.missing, 'string');
    assert.match(stdout, /- docker: not measured: /);
    const received = measurements.find(({ id }) => id === 'peer/curl');
    if (curl?.missing === null) assert.ok(received?.cpuSeconds && received.cpuSeconds.median > 0);
    assert.ok(!existsSync(bench.store));
  });

  test('no space for stores: told, exit code 7, the network is measured, and nothing is left', {
    skip: skipUnlessMount(),
  }, async (t) => {
    const { image } = await registryOf(t, 90);
    const disk = smallDisk(t, 2e6);
    const bench = startBench(t, [image, ...ONE_SETTING], { store: disk });
    const { exitCode, stdout, stderr } = await bench.ended;
    assert.equal(exitCode, 7, stderr);
    const report = bench.report();
    assert.deepEqual(idsOf(report), ['network/c16']);
    assert.deepEqual([...new Set(report.errors.map(({ code }) => code))], ['store-full']);
    assert.match(stdout, /Not measured:\n- machine: /);
    assert.deepEqual(readdirSync(disk), []);
  });

  test('a password goes to the commands that are measured, and into no argument and no report', async (t) => {
    const secret = 'a password of this test';
    const { image } = await registryOf(t, 30, { requireToken: { credentials: `someone:${secret}` } });
    const args = [image, '--stage', 'pull', ...ONE_SETTING, '--username', 'someone', '--password-stdin'];
    const bench = startBench(t, args, { input: `${secret}\n` });
    const seen = new Set<string>();
    const watch = setInterval(() => {
      for (const line of processesWith(bench.store)) seen.add(line);
    }, 50);
    const { exitCode, stdout, stderr } = await bench.ended;
    clearInterval(watch);
    assert.equal(exitCode, 0, stderr);
    const report = bench.report();
    assert.deepEqual(idsOf(report), ['pull/w2/c16', 'unchanged']);
    // The command itself, and the pulls that it measures.
    assert.ok(seen.size >= 2, [...seen].join('\n'));
    for (const text of [...seen, stdout, stderr, JSON.stringify(report)])
      assert.ok(!text.includes(secret), text);
  });

  test('an image that does not exist ends with 3 and leaves nothing', async (t) => {
    const { registry } = await registryOf(t, 30);
    const bench = startBench(t, [`${registry.host}/some/image:absent`]);
    const { exitCode, stdout, stderr } = await bench.ended;
    assert.deepEqual([exitCode, stdout, existsSync(bench.store)], [3, '', false]);
    assert.match(stderr, /^zpull: .*absent/m);
  });

  test('more than 5 GB need --yes', async (t) => {
    const { image } = await registryOf(t, 90);
    const store = join(temporaryDirectory(t), 'own');
    mkdirSync(store);
    const bench = startBench(t, [image, '--runs', '1000', '--stage', 'pull'], { store });
    const { exitCode, stderr } = await bench.ended;
    assert.deepEqual([exitCode, readdirSync(store)], [2, []]);
    assert.match(stderr, /would fetch up to [\d.]+ GB\nhint: add --yes/);
  });

  for (const [args, message] of [
    [['--runs', '0'], /--runs must be a whole number from 1 to 1000, not "0"/],
    [['--connections', 'x'], /--connections must be a whole number from 1 to 1000, not "x"/],
    [['--html', '-'], /--html needs the name of a file/],
    [['--against', 'nosuch'], /--against does not know "nosuch"\nhint: it knows skopeo, crane/],
    [['--stage', 'update'], /--stage update needs an image to start from\nhint: add --from/],
    [['--compare', '/nonexistent'], /\/nonexistent .*\nhint: give --compare a file that zpull bench/],
  ] as const) {
    test(`${args.join(' ')} ends with 2`, async (t) => {
      const bench = startBench(t, ['127.0.0.1:1/some/image', ...args]);
      const { exitCode, stdout, stderr } = await bench.ended;
      assert.deepEqual([exitCode, stdout, existsSync(bench.store)], [2, '', false]);
      assert.match(stderr, message);
    });
  }
});

/** The processes whose command lines have this text. */
function pidsWith(argument: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((id) => commandLineOf(id).includes(argument))
    .map(Number);
}

function commandLineOf(id: string): string {
  try {
    return readFileSync(`/proc/${id}/cmdline`, 'utf8');
  } catch {
    return ''; // It is gone.
  }
}

/** The command lines of processes that have this text. */
function processesWith(argument: string): string[] {
  return pidsWith(argument).map((pid) => commandLineOf(String(pid)));
}
