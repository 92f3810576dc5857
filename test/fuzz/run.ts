/** `npm run fuzz -- [--seconds N] [--target NAME]… [--seed S]`: tries inputs until the time is over, or one is handled wrongly. */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { search } from './campaign.js';
import { TARGETS } from './targets.js';

/** Inputs of one turn: some tenths of a second, so that all targets have several turns a minute. */
const RUNS_A_TURN = 500;

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string', default: String(randomInt(2 ** 31)) },
    target: { type: 'string', multiple: true },
  },
});

const names = TARGETS.map(({ name }) => name);
const targets = values.target ?? names;
const [seconds, seed] = [Number(values.seconds), Number(values.seed)];
const unknown = targets.filter((name) => !names.includes(name));

if (unknown.length > 0 || !(seconds > 0) || !Number.isSafeInteger(seed)) {
  process.stderr.write(
    `usage: npm run fuzz -- [--seconds N] [--seed S] [--target NAME]…\ntargets: ${names.join(' ')}\n`,
  );
  process.exit(2);
}

process.stdout.write(`seed ${seed}, ${targets.length} targets, ${seconds} s\n`);
let turns = 0;
const finding = await search({
  targets,
  seed,
  runs: RUNS_A_TURN,
  limitMs: seconds * 1000,
  onTurn: () => {
    turns += 1;
  },
});
if (finding === undefined) {
  process.stdout.write(`${turns} turns of ${RUNS_A_TURN} inputs, nothing found\n`);
  process.exit(0);
}
process.stdout.write(
  `${finding.target}: ${finding.error}\n\ninput: ${finding.input}\nagain: npm run fuzz -- --target ${finding.target} --seed ${finding.seed}\n`,
);
process.exit(1);
