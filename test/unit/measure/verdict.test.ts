import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Stages } from '../../../src/api/stages.js';
import { verdictOf } from '../../../src/measure/verdict.js';
import { settingSentences } from '../../../src/measure/verdict-text.js';
import { machine, measurement, report } from '../../support/bench-report.js';

/** A processor that takes a second for what the network brings. */
const FAST_MACHINE = machine({ decode: 0.3, hash: 0.3, write: 0.2, together: 1 });

test('a network that grows with connections: more of them are recommended, with the reason', () => {
  const verdict = verdictOf(
    report([
      measurement('network/c1', [5, 5, 5]),
      measurement('network/c4', [1.25, 1.25, 1.25]),
      measurement('network/c16', [0.4, 0.4, 0.4]),
      ...FAST_MACHINE,
      measurement('pull/w2/c1', [5.3, 5.3, 5.3]),
      measurement('pull/w2/c4', [1.9, 1.9, 1.9]),
      measurement('pull/w2/c16', [1.2, 1.2, 1.2], { cpuSeconds: 2 }),
    ]),
  )!;
  assert.deepEqual([verdict.best.connections, verdict.default?.lossPercent], [16, 0]);
  assert.match(
    verdict.advice[0]!,
    /^16 connections are right: the network gives 20\.0 MB\/s to 1 connection/,
  );
  assert.match(verdict.advice[0]!, /250\.0 MB\/s to 16, as each connection has a limit of its own/);
});

/** What is said about connections, where the default is best. `rates`: seconds by connections. */
function connectionSentence(seconds: Readonly<Record<number, number>>): string {
  const networks = Object.entries(seconds).map(([number, each]) => measurement(`network/c${number}`, [each]));
  const verdict = verdictOf(
    report([...networks, ...FAST_MACHINE, measurement('pull/w2/c16', [9]), measurement('pull/w2/c1', [9])]),
  )!;
  assert.equal(verdict.best.connections, 16);
  return verdict.advice[0]!;
}

test('what is said about connections does not contradict the rates', () => {
  assert.equal(
    connectionSentence({ 1: 1, 4: 1.02, 16: 1.1 }),
    'More than 1 connection brings nothing: the network gives 100.0 MB/s to 1 connection, 98.0 MB/s to 4, 90.9 MB/s to 16. 1 would do, and the pull is as fast with 16.',
  );
  assert.match(
    connectionSentence({ 1: 2, 8: 0.5, 16: 0.6 }),
    /^16 connections are right: .* 8 would do for the network, and the pull is as fast with 16\.$/,
  );
  assert.match(connectionSentence({ 1: 2, 16: 0.5, 32: 0.5 }), / More than 16 bring nothing\.$/);
  assert.match(connectionSentence({ 1: 2, 16: 0.5 }), / More than 16 were not tried\.$/);
  assert.match(
    connectionSentence({ 1: 2, 16: 0.5, 32: 0.3 }),
    / With 16 the rest of the pull takes longer than the network: more do not make it faster\.$/,
  );
});

test('other programs that keep the cores busy are not taken for the pull', () => {
  const [pull] = [measurement('pull/w2/c16', [2], { cpuSeconds: 1 })];
  const runs = pull!.runs.map((run) => ({ ...run, foreignShare: 0.75 }));
  const verdict = verdictOf(
    report([measurement('network/c16', [0.2]), ...FAST_MACHINE, { ...pull!, runs }]),
  )!;
  assert.match(verdict.reason, /the 2 cores are busy 100 % of the pull, of which 75 % for other programs;/);
  assert.match(verdict.advice.join(' '), /without them the pull would be faster/);
});

test('the floor is defined, with its seconds', () => {
  const verdict = verdictOf(
    report([
      measurement('network/c16', [0.2]),
      ...machine({ decode: 1, hash: 0.8, write: 0.3, together: 2.4 }),
      measurement('pull/w2/c16', [2.7]),
    ]),
  )!;
  assert.match(
    settingSentences(verdict).at(-1)!,
    /^The floor is 1\.80 s: the longest of receiving alone, decoding and hashing alone .* this one takes 1\.5 times that/,
  );
});

test('a network that takes as long as the pull is the limit', () => {
  const verdict = verdictOf(
    report([
      measurement('network/c16', [9, 9.1, 9]),
      ...FAST_MACHINE,
      measurement('pull/w2/c16', [10, 10, 10]),
    ]),
  )!;
  assert.deepEqual([verdict.bound, verdict.ratio], ['network', 0.9]);
  assert.match(
    verdict.reason,
    /^The network is the limit: of the 10\.0 s of a pull.* takes 9\.00 s \(90 %\);/,
  );
  assert.match(
    verdict.advice.join(' '),
    /nearer mirror or a faster link would make the pull faster, up to 9\.0 times/,
  );
});

test('a pull that receives at the full rate of the network is bound by it, however busy the machine is', () => {
  const verdictOfFetch = (wallMs: number) =>
    verdictOf(
      report([
        measurement('network/c16', [2]),
        ...machine({ decode: 0.3, hash: 0.3, write: 0.2, together: 2.8 }),
        measurement('pull/w2/c16', [3], { stages: { ...stages(), fetch: { ...stages().fetch, wallMs } } }),
      ]),
    )!;
  assert.equal(verdictOfFetch(2100).bound, 'network');
  assert.match(verdictOfFetch(2100).reason, /2\.00 s \(67 %\); the pull, .*, received them in 2\.10 s\.$/);
  assert.match(verdictOfFetch(1900).reason, /2\.00 s \(67 %\); the pull .* and receives as fast\.$/);
  assert.equal(verdictOfFetch(2700).bound, 'processor');
});

/** A stage in which nothing is done but waited. */
function waiting(waitMs: number): Stages['fetch'] {
  return { bytes: 1, wallMs: waitMs, workMs: 0, waitMs };
}

test('a pull that mostly waits for answers, on idle cores, is bound by the delay of the network', () => {
  const verdictOfCpu = (cpuSeconds: number) => {
    const far = { ...stages(), resolve: waiting(300), metadata: waiting(500), fetch: waiting(900) };
    return verdictOf(
      report([
        measurement('network/c16', [0.8]),
        ...machine({ decode: 0.1, hash: 0.1, write: 0.1, together: 0.9 }),
        measurement('pull/w2/c16', [2], { cpuSeconds, stages: far }),
      ]),
    )!;
  };
  assert.match(
    verdictOfCpu(1.3).reason,
    /^The network is the limit, by its delay: for \d+ % of the 2\.00 s of a pull, it waits for answers of the registry; .* 0\.800 s \(40 %\), everything else without a network 0\.900 s \(45 %\)\.$/,
  );
  assert.equal(verdictOfCpu(3.9).bound, 'processor');
});

test('a rate limit that makes the network the limit is named', () => {
  const measurements = [measurement('network/c16', [20]), ...FAST_MACHINE, measurement('pull/w2/c16', [21])];
  const verdict = verdictOf(report(measurements, { limitRate: 5e6 }))!;
  assert.equal(verdict.bound, 'network');
  assert.match(verdict.reason, /as --limit-rate allows 5\.0 MB\/s/);
  assert.match(verdict.advice.join(' '), /A higher --limit-rate would make the pull faster/);
});

test('a pull that takes as long without a network is bound by the processor', () => {
  const verdict = verdictOf(
    report([
      measurement('network/c16', [0.2]),
      ...machine({ decode: 1, hash: 0.8, write: 0.3, together: 2.4 }),
      measurement('pull/w2/c16', [2.5], { cpuSeconds: 4.85 }),
    ]),
  )!;
  assert.deepEqual([verdict.bound, verdict.ratio, verdict.floorRatio], ['processor', 0.96, 2.5 / 1.8]);
  assert.match(verdict.reason, /the 2 cores are busy 97 % of the pull;/);
  assert.match(
    verdict.advice.join(' '),
    /a second mirror would not help: the processor is busy 97 % of the pull\./,
  );
});

test('a disk that alone takes as long as all work together is the limit', () => {
  const verdict = verdictOf(
    report([
      measurement('network/c16', [0.2]),
      ...machine({ decode: 0.3, hash: 0.3, write: 5, together: 5.4 }),
      measurement('pull/w2/c16', [5.5]),
    ]),
  )!;
  assert.deepEqual([verdict.bound, verdict.ratio], ['disk', 5 / 5.5]);
  assert.match(verdict.reason, /^The disk is the limit: .* writing and syncing alone takes 5\.00 s \(91 %\)/);
});

test('layers of gzip are named where the processor is the limit', () => {
  const bound = report([...FAST_MACHINE, measurement('network/c16', [0.2]), measurement('pull/w2/c16', [1])]);
  const layers = bound.image.layers.map((layer) => ({ ...layer, format: 'gzip' }));
  const verdict = verdictOf({ ...bound, image: { ...bound.image, layers } })!;
  assert.match(verdict.advice.join(' '), /1 of 1 layer is gzip/);
});

test('the default loses against another setting only beyond noise', () => {
  const verdictOfWalls = (usual: number[], one: number[]) =>
    verdictOf(
      report([
        measurement('network/c16', [0.1]),
        ...FAST_MACHINE,
        measurement('pull/w2/c16', usual),
        measurement('pull/w1/c16', one),
      ]),
    )!;
  const beyond = verdictOfWalls([2, 2.1, 2.2, 2.05, 2.15], [1, 1.1, 1.2, 1.05, 1.15]);
  assert.deepEqual([beyond.best.workers, Math.round(beyond.default!.lossPercent)], [1, 91]);
  const within = verdictOfWalls([1, 1.4, 1.2, 1.3, 1.25], [1.05, 1.1, 1.35, 1.15, 1.12]);
  assert.deepEqual([within.best.workers, within.default!.lossPercent], [2, 0]);
  const few = verdictOfWalls([1, 1.5], [0.9, 0.95]);
  assert.deepEqual([few.best.workers, few.default!.lossPercent], [2, 0]);
  const single = verdictOfWalls([1.4], [1]);
  assert.deepEqual([single.best.workers, single.default!.lossPercent], [2, 0]);
  const apart = verdictOfWalls([2, 2.5], [0.9, 0.95]);
  assert.deepEqual([apart.best.workers, Math.round(apart.default!.lossPercent)], [1, 143]);
});

test('where the default was not measured, nothing is said about it', () => {
  const verdict = verdictOf(
    report([measurement('network/c4', [9]), ...FAST_MACHINE, measurement('pull/w1/c4', [10])]),
  )!;
  assert.deepEqual([verdict.default, verdict.best.connections, verdict.bound], [null, 4, 'network']);
});

test('there is no verdict without pulls or without the machine', () => {
  assert.equal(verdictOf(report([measurement('network/c16', [1]), ...FAST_MACHINE])), null);
  assert.equal(verdictOf(report([measurement('network/c16', [1]), measurement('pull/w2/c16', [1])])), null);
});

test('an image on this machine has no network: the machine is the limit', () => {
  const remote = report([...FAST_MACHINE, measurement('pull/w2/c16', [1.1])]);
  assert.equal(verdictOf(remote), null);
  const verdict = verdictOf({ ...remote, image: { ...remote.image, reference: 'oci:./layout:tag' } })!;
  assert.deepEqual([verdict.bound, verdict.advice.join(' ').includes('connection')], ['processor', false]);
});

test('shares divide the wall time of the median run, and sum to 1', () => {
  const { shares } = verdictOf(
    report([
      measurement('network/c16', [1]),
      ...FAST_MACHINE,
      measurement('pull/w2/c16', [1, 2, 9], { stages: stages() }),
    ]),
  )!;
  const sum = Object.values(shares!).reduce((total, share) => total + share, 0);
  assert.ok(Math.abs(sum - 1) < 1e-9);
  // Of two seconds: 0.1 resolving, 0.3 metadata, 0.2 proving, 1.2 fetching by two threads.
  const rounded = Object.fromEntries(
    Object.entries(shares!).map(([name, share]) => [name, Number(share.toFixed(4))]),
  );
  assert.deepEqual(rounded, {
    resolve: 0.05,
    metadata: 0.15,
    fetchWait: 0.3,
    receive: 0.05,
    decode: 0.15,
    hash: 0.05,
    write: 0.025,
    sync: 0.025,
    prove: 0.1,
    other: 0.1,
  });
});

function stages(): Stages {
  const figures = (wallMs: number, workMs: number, waitMs = 0) => ({ bytes: 1, wallMs, workMs, waitMs });
  return {
    resolve: figures(100, 10, 90),
    metadata: figures(300, 100, 200),
    fetch: figures(1200, 200, 1200),
    decode: figures(1000, 600),
    hash: figures(1000, 200),
    write: figures(1000, 100),
    sync: figures(100, 0, 100),
    prove: figures(200, 0, 0),
    threads: 3,
    workers: 2,
    connections: 16,
    limitRate: null,
    patienceSeconds: 1,
    peakMemoryBytes: 1e8,
    cpuSeconds: 2,
    mainThreadBusy: 0.1,
  };
}
