import { medianOf } from '../../src/measure/statistics.js';
import { type Bench, eachRun, recordWanted, wants } from '../context.js';
import { runNode, ZPULL } from '../process.js';

const COMMANDS: Readonly<Record<string, readonly string[]>> = {
  '10a': ['--version'],
  '10b': ['--help'],
  '10c': ['--no-such-option'],
};

/** A short process: several in a run cost little and steady the figure. */
const TIMES = 10;

/** Row 10: what the command line takes to say something short, and `node -e 0`, in turns. */
export async function startUp(bench: Bench): Promise<void> {
  if (!wants(bench, 10)) return;
  const ratios: Record<string, number[]> = { '10a': [], '10b': [], '10c': [] };
  for (const _ of eachRun(bench, 'start-up')) {
    const wallMs: Record<string, number[]> = { empty: [], '10a': [], '10b': [], '10c': [] };
    for (let i = 0; i < TIMES; i += 1) {
      wallMs['empty']!.push((await runNode(['-e', '0'])).wallMs);
      for (const [id, args] of Object.entries(COMMANDS)) {
        wallMs[id]!.push((await runNode([ZPULL, ...args])).wallMs);
      }
    }
    for (const [id, runs] of Object.entries(ratios))
      runs.push(medianOf(wallMs[id]!) / medianOf(wallMs['empty']!));
  }
  for (const [id, runs] of Object.entries(ratios)) recordWanted(bench, id, runs);
}
