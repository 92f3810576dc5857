import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UsageError } from '../../../src/cli/failure.js';
import type { NumberRule } from '../../../src/cli/options.js';
import { describeNumber, parseArguments, readNumber } from '../../../src/cli/parse-arguments.js';

/** The message and hint with which a command line is refused. */
function refusal(line: string): string {
  try {
    parseArguments(line === '' ? [] : line.split(' '));
  } catch (error) {
    assert.ok(error instanceof UsageError);
    return `${error.message} | ${error.hint}`;
  }
  return 'accepted';
}

function accepted(...argv: string[]): {
  command: string;
  options: Record<string, string>;
  words: readonly string[];
} {
  const { command, options, words } = parseArguments(argv);
  const texts = Object.entries(options).map(([name, value]) => [name, String(value)]);
  return { command: command.name, options: Object.fromEntries(texts), words };
}

test('a line without a command pulls, and all words stay as they were typed', () => {
  assert.deepEqual(accepted('1.10', '--workers', '2', '007', '--store=a=b'), {
    command: 'pull',
    options: { workers: '2', store: 'a=b' },
    words: ['1.10', '007'],
  });
});

test('options stand before, between and after words; short flags stand together; words follow a double dash', () => {
  assert.deepEqual(accepted('-qv', 'export', '--json', 'alpine', '--', 'layers:x'), {
    command: 'export',
    options: { quiet: 'true', verbose: 'true', json: 'true' },
    words: ['alpine', 'layers:x'],
  });
  assert.deepEqual(accepted('pull', '--', '--strange').words, ['--strange']);
});

test('a flag takes a value after an equals sign only', () => {
  assert.equal(accepted('--tls-verify=false', 'alpine').options['tls-verify'], 'false');
  assert.match(refusal('--tls-verify false alpine'), /--tls-verify=false/);
  assert.match(refusal('--tls-verify=no alpine'), /must be true or false, not "no"/);
});

test('a first word that is nearly a command is refused, and the hint says how to insist', () => {
  for (const [word, command] of [
    ['expotr', 'export'],
    ['pul', 'pull'],
    ['PULL', 'pull'],
    ['sotre', 'store'],
    ['inspetc', 'inspect'],
    ['cp', 'copy'],
  ]) {
    assert.match(
      refusal(`${word} alpine tar:x`),
      new RegExp(`^"${word}" is no command; did you mean "${command}"\\?.*zpull pull ${word}$`),
    );
  }
});

test('a verb of another tool is refused, and the hint names the way of zpull or the tool that has it', () => {
  for (const [verb, way] of [
    ['login', 'docker login HOST'],
    ['images', 'zpull store ls'],
    ['ls', 'zpull store ls'],
    ['rmi', 'zpull store rm IMAGE'],
    ['run', 'docker load'],
    ['save', 'docker-archive:FILE'],
    ['load', 'oci-archive:FILE'],
    ['push', 'skopeo copy'],
    ['list-tags', 'zpull tags NAME'],
    ['version', 'zpull --version'],
  ] as const) {
    const text = refusal(`${verb} alpine`);
    assert.match(text, new RegExp(`^there is no command "${verb}" \\|.*zpull pull ${verb}$`));
    assert.ok(text.includes(way), text);
    assert.equal(refusal(`pull ${verb}`), 'accepted');
  }
});

test('names that are no typing errors, say more than a name, or follow the word pull are images', () => {
  for (const line of [
    'alpine',
    'debian',
    // Official images two edits from a command.
    'nats',
    'perl',
    'storm',
    'docker.io/library/pull',
    'pull:1',
    'pull@x',
    'pull expotr',
    'pull pull',
  ]) {
    assert.equal(refusal(line), 'accepted', line);
  }
});

test('an unknown option is refused with the nearest one, or with the command it belongs to', () => {
  assert.match(refusal('--paltform x alpine'), /zpull pull has no option --paltform .* --platform\?/);
  assert.match(refusal('--conn 3 alpine'), /did you mean --connections\?/);
  assert.match(refusal('--port 1 alpine'), /has no option --port .*zpull serve/);
  assert.match(
    refusal('serve oci:x --platform y'),
    /zpull serve has no option --platform .*zpull pull, zpull plan, zpull inspect, zpull export, zpull copy and zpull bench/,
  );
  assert.match(refusal('-x alpine'), /zpull pull has no option -x \| zpull pull --help lists them$/);
  assert.match(refusal('--__proto__=1 alpine'), /has no option --__proto__/);
});

test('an option of another tool is refused with the way of zpull', () => {
  assert.match(refusal('--retry-times 5 alpine'), /no option --retry-times \| .*--patience SECONDS/);
  assert.match(refusal('--retry=5 alpine'), /no option --retry \| .*--patience SECONDS/);
  assert.match(refusal('--override-arch arm64 alpine'), /\| .*--platform OS\/ARCH/);
  assert.match(refusal('-a alpine'), /no option -a \| .*--all-platforms/);
});

test('an option given twice is refused, by whichever of its names', () => {
  assert.match(refusal('--store a --store b alpine'), /--store is given twice/);
  assert.match(refusal('-q --quiet alpine'), /--quiet is given twice/);
});

test('an option without its value is refused, whatever follows', () => {
  for (const line of ['alpine --store', '--store --json alpine', '--store= alpine']) {
    assert.match(refusal(line), /--store needs a value \| write --store DIR/, line);
  }
});

test('a number out of range or of another form is refused, and the message names option and range', () => {
  for (const value of ['abc', '0', '-1', '1.5', '513', '0x2', '1e1']) {
    assert.match(
      refusal(`--workers ${value} alpine`),
      new RegExp(`^--workers must be a whole number from 1 to 512, not "${value}"`),
    );
  }
  assert.match(refusal('--patience 0 alpine'), /--patience must be a number of seconds from 0.001 to 86400/);
  assert.match(refusal('serve oci:x --rate fast'), /--rate must be a number of bytes.*like 20M/);
  assert.match(
    refusal('--policy soon alpine'),
    /--policy cannot be "soon" \| it is one of always, missing, never/,
  );
});

test('a command gets as many words as it takes', () => {
  assert.match(refusal(''), /^no image is named/);
  assert.match(refusal('pull'), /^zpull pull needs IMAGE \| usage: zpull pull IMAGE…/);
  assert.match(refusal('export alpine'), /^zpull export needs DEST \| usage: zpull export IMAGE DEST/);
  assert.match(refusal('export alpine layers:x more'), /^zpull export does not take "more"/);
  assert.match(
    refusal('store clean'),
    /^zpull store has no action "clean" \| there is: ls, rm, prune, verify, path$/,
  );
});

test('help and version need no words, and the word help stands for the option', () => {
  assert.equal(accepted('export', '--help').options['help'], 'true');
  assert.equal(accepted('--version').options['version'], 'true');
  assert.deepEqual(accepted('help', 'export'), { command: 'export', options: { help: 'true' }, words: [] });
});

test('options that say nothing alone, or the same in two ways, are refused together', () => {
  assert.match(refusal('--username me alpine'), /^--username needs --password-stdin/);
  assert.match(refusal('--password-stdin alpine'), /^--password-stdin needs --username/);
  assert.match(
    refusal('--creds a:b --username me --password-stdin alpine'),
    /^--creds and --username are both given/,
  );
  assert.equal(refusal('--username me --password-stdin alpine'), 'accepted');
  assert.equal(refusal('--password-stdin=false alpine'), 'accepted');
});

test('no refusal repeats a secret', () => {
  for (const line of [
    '--creds me:canary --creds me:canary x',
    '--cred me:canary',
    '--creds=me:canary --username u x',
  ]) {
    assert.doesNotMatch(refusal(line), /canary|accepted/);
  }
});

test('what yargs would read in another sense is refused', () => {
  assert.match(refusal('-q5 alpine'), /has no option -q5/);
  assert.match(refusal('-q=no alpine'), /has no option -q=no/);
  assert.match(refusal('--json true alpine'), /write --json=true/);
  assert.match(refusal('--store.x=1 alpine'), /has no option --store\.x/);
  assert.match(refusal('--policy= alpine'), /^--policy needs a value/);
  assert.match(refusal('alpine --get-yargs-completions x'), /has no option --get-yargs-completions/);
  assert.match(refusal('serve oci:x --force'), /zpull serve has no option --force/);
  assert.match(refusal('-- export alpine'), /^the command "export" comes after --/);
});

test('names of commands are images behind a command, and - is a value', () => {
  for (const word of ['pull', 'completion', 'help', '--']) {
    assert.deepEqual(accepted('pull', '--output', '-', '--', word).words, [word]);
  }
  assert.deepEqual(accepted('alpine', 'completion').words, ['alpine', 'completion']);
  assert.deepEqual(accepted('pull', '-V'), { command: 'pull', options: { version: 'true' }, words: [] });
});

const BYTES: NumberRule = { kind: 'bytes', min: 1, max: Number.MAX_SAFE_INTEGER };
const WHOLE: NumberRule = { kind: 'whole', min: 0, max: 65_535 };
const SECONDS: NumberRule = { kind: 'decimal', min: 0.001, max: 60, unit: 'seconds' };

test('sizes take K, M and G as powers of 1024', () => {
  const read = ['1', '10K', '20M', '3G', '1.5M', '2k'].map((text) => readNumber(text, BYTES));
  assert.deepEqual(read, [1, 10_240, 20_971_520, 3_221_225_472, 1_572_864, 2048]);
});

test('sizes of another form, of nothing or beyond what a number holds are refused', () => {
  for (const text of [
    '',
    '0',
    'M',
    '-1',
    '1MB',
    '1 M',
    '1e3',
    '0x10',
    '1T',
    '9999999999999999',
    '999999999999G',
  ]) {
    assert.equal(readNumber(text, BYTES), undefined, text);
  }
});

test('whole numbers stay within their range and take digits only', () => {
  assert.equal(readNumber('65535', WHOLE), 65_535);
  assert.equal(readNumber('0', WHOLE), 0);
  for (const text of ['65536', '-1', '1.0', '+1', '1e2', '0x1', '', 'NaN', 'Infinity', '١']) {
    assert.equal(readNumber(text, WHOLE), undefined, text);
  }
});

test('seconds may have decimals', () => {
  assert.equal(readNumber('0.25', SECONDS), 0.25);
  assert.equal(readNumber('.5', SECONDS), 0.5);
  for (const text of ['0', '0.0001', '61', '.', '1,5', '1s'])
    assert.equal(readNumber(text, SECONDS), undefined, text);
});

test('a rule describes the numbers it takes', () => {
  assert.equal(describeNumber(WHOLE), 'a whole number from 0 to 65535');
  assert.equal(describeNumber(SECONDS), 'a number of seconds from 0.001 to 60');
  assert.match(describeNumber(BYTES), /powers of 1024/);
});

test('a duration is a whole number with its unit, in seconds', () => {
  const rule = { kind: 'duration', min: 0, max: 1e9 } as const;
  assert.deepEqual(
    ['30d', '12h', '90m', '45s', '0s'].map((text) => readNumber(text, rule)),
    [2_592_000, 43_200, 5400, 45, 0],
  );
  for (const text of ['30', 'd', '1.5d', '-1d', '30 d', '1w', '1D', ''])
    assert.equal(readNumber(text, rule), undefined, text);
});

test('options of bench that other commands have, too, have values of their own there', () => {
  const { command, options, words } = parseArguments(
    'bench alpine --workers 1,2 --connections 16,4,16 --against skopeo,curl --json out.json'.split(' '),
  );
  assert.deepEqual([command.name, words], ['bench', ['alpine']]);
  assert.deepEqual(options, {
    'workers-list': [1, 2],
    'connections-list': [16, 4],
    against: ['skopeo', 'curl'],
    'json-file': 'out.json',
  });
  assert.deepEqual(parseArguments(['--debug', 'bench', 'alpine', '--json', 'out.json']).words, ['alpine']);
  assert.deepEqual(parseArguments(['pull', 'alpine', '--json']).options, { json: true });
  for (const [line, message] of [
    ['bench alpine --json', /^--json needs a value/],
    ['bench alpine --workers 1,0', /^--workers must be a whole number from 1 to 512, not "0"/],
    ['bench alpine --connections 1,,2', /^--connections must be a whole number .*, not ""/],
    ['bench alpine --against skopeo,', /^--against has an empty word/],
    ['bench alpine --policy never', /^zpull bench has no option --policy/],
    ['bench alpine --fail-if-slower 10', /^--fail-if-slower needs --compare/],
    ['pull alpine --json=out.json', /^--json must be true or false/],
    ['pull alpine --runs 5', /^zpull pull has no option --runs \| it is an option of zpull bench/],
  ] as const) {
    assert.match(refusal(line), message);
  }
});
