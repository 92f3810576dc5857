import type { OptionValues } from '../options.js';
import { jsonLine, printable } from '../printable.js';
import { storeOf } from '../pull-options.js';
import { UsageError } from '../usage-error.js';

/** What an action of `zpull store` works on. */
export interface StoreArguments {
  readonly store: string;
  readonly image: string | undefined;
  readonly json: boolean;
  /** Shows a warning, unless --quiet is given. */
  readonly warn: (message: string) => void;
  readonly olderThanMs: number | undefined;
}

/** One action: its exit code. */
type StoreAction = (given: StoreArguments) => Promise<number>;

interface ActionSpec {
  /** Whether it takes an image. */
  readonly image: 'needs' | 'may' | 'none';
  readonly olderThan?: true;
  /** Its code, loaded when it runs. */
  readonly run: () => Promise<StoreAction>;
}

const ACTIONS: Readonly<Record<string, ActionSpec>> = {
  ls: { image: 'none', run: async () => (await import('../store/list.js')).runList },
  rm: { image: 'needs', run: async () => (await import('../store/remove.js')).runRemove },
  prune: { image: 'none', olderThan: true, run: async () => (await import('../store/prune.js')).runPrune },
  verify: { image: 'may', run: async () => (await import('../store/verify.js')).runVerify },
  path: { image: 'none', run: async () => runPath },
};

/** `zpull store ACTION [IMAGE]`. */
export async function runStore(
  [name = '', image]: readonly string[],
  options: OptionValues,
): Promise<number> {
  const action = ACTIONS[name]!;
  if (action.image === 'needs' && image === undefined) {
    throw new UsageError(`zpull store ${name} needs IMAGE`, `write zpull store ${name} IMAGE`);
  }
  if (action.image === 'none' && image !== undefined) {
    throw new UsageError(`zpull store ${name} does not take "${image}"`, `write zpull store ${name}`);
  }
  const olderThan = options['older-than'];
  if (olderThan !== undefined && action.olderThan !== true) {
    throw new UsageError(`zpull store ${name} has no option --older-than`, 'it is for zpull store prune');
  }
  const run = await action.run();
  return run({
    store: storeOf(options, process.env),
    image,
    json: options.json === true,
    warn: options.quiet === true ? () => {} : sayWarning,
    olderThanMs: olderThan === undefined ? undefined : olderThan * 1000,
  });
}

function sayWarning(message: string): void {
  process.stderr.write(`zpull: warning: ${printable(message)}\n`);
}

/** Prints where the store is, whether it exists yet or not. */
async function runPath({ store, json }: StoreArguments): Promise<number> {
  process.stdout.write(json ? jsonLine({ store }) : `${store}\n`);
  return 0;
}
