import assert from 'node:assert/strict';
import { test } from 'node:test';
import { comparisonText, reportText } from '../../../src/cli/bench-text.js';
import { compareReports } from '../../../src/measure/compare.js';
import type { Report } from '../../../src/measure/report.js';
import { verdictOf } from '../../../src/measure/verdict.js';
import { machine, measurement, report } from '../../support/bench-report.js';

const BUSY = "up to 84 % of the processor's work was that of other programs";

function sample(): Report {
  const full = report([
    { ...measurement('network/c1', [5, 5.25, 5.5]), name: 'network, 1 connection' },
    {
      ...measurement('network/c16', [0.4, 0.41, 0.42], { doubts: [BUSY.replace('84', '12')] }),
      name: 'network, 16 connections',
    },
    ...machine({ decode: 0.3, hash: 0.3, write: 0.2, together: 1 }),
    {
      ...measurement('pull/w2/c16', [1234.5, 1300, 1400], {
        doubts: [
          BUSY,
          'the runs lie up to 13 % of the median apart',
          'outliers: run 3',
          'one more',
          'and more',
        ],
      }),
      name: 'pull, 16 workers, 1000 connections in a name that is long',
    },
  ]);
  full.verdict = verdictOf(full);
  full.peers.push({
    name: 'skopeo',
    version: 'skopeo version 1.9.3',
    missing: null,
    command: 'skopeo copy …',
    leaves: 'blobs in an OCI layout, not unpacked',
    proves: 'the digests of the blobs, no DiffID',
  });
  full.errors.push({
    measurement: 'update',
    code: 'network-hopeless',
    message: `\u001b[31m${'x'.repeat(200)}`,
    hint: 'check the network',
  });
  return full;
}

test('a report fits 80 columns, whatever names and messages are in it', () => {
  const text = reportText(sample());
  assert.deepEqual(
    text.split('\n').filter((line) => [...line].length > 80),
    [],
  );
  assert.ok(!text.includes('\u001b'));
});

test('the table has median, mean, deviation, range and rate, with marks of doubts', () => {
  const lines = reportText(sample()).split('\n');
  const rowOf = (name: string) => lines.find((line) => line.startsWith(name));
  assert.equal(
    rowOf('network, 1 connection'),
    'network, 1 connection          5.25   5.25 ± 0.250    5.00..5.50   19.0 MB/s',
  );
  assert.match(rowOf('network, 16 connections')!, /243\.9 MB\/s a$/);
});

test('doubts that differ in their figures alone are one line, with the largest', () => {
  const lines = reportText(sample()).split('\n');
  assert.deepEqual(
    lines.filter((line) => /^[a-z]\) /.test(line)),
    [
      `a) ${BUSY}`,
      'b) the runs lie up to 13 % of the median apart',
      'c) outliers: run 3',
      'd) one more',
      'e) and more',
    ],
  );
  assert.ok(lines.includes('  doubts abcde'));
});

test('a report that was ended early says so, and one of a single stage has no verdict', () => {
  const early = { ...report([measurement('network/c1', [1])]), complete: false };
  assert.match(reportText(early), /This is not complete: the measurement was ended\.\n$/);
  const network = report([measurement('network/c1', [1])], { stage: 'network' });
  assert.match(reportText(network), /Verdict: none, it needs --stage all\.\n$/);
  const failed = report([measurement('network/c1', [1])]);
  assert.match(reportText(failed), /Verdict: none, it needs the network, the machine and a pull\.\n$/);
});

test('a comparison fits 80 columns', () => {
  const before = report([measurement('pull/w2/c16', [1, 1.1, 1.2, 1.05, 1.15])]);
  const now = report([
    {
      ...measurement('pull/w2/c16', [2, 2.2, 2.4, 2.1, 2.3]),
      name: 'pull, 16 workers, 1000 connections in a name that is long',
    },
  ]);
  const text = comparisonText(compareReports(before, { ...now, machine: { ...now.machine, cores: 64 } }));
  assert.equal(
    text,
    `${[
      'SECONDS                       BEFORE       NOW   RATIO',
      'pull, 16 workers, 1000          1.10      2.20    2.00  slower',
      '  connections in a name',
      '  that is long',
      '',
      'Doubts:',
      '- the number of cores differs: 2, now 64',
    ].join('\n')}\n`,
  );
});
