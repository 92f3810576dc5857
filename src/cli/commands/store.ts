import type { OptionValues } from '../options.js';
import { jsonLine } from '../printable.js';
import { storeOf } from '../pull-options.js';
import { UsageError } from '../usage-error.js';

/** One action of `zpull store`: its exit code. */
type StoreAction = (store: string, image: string | undefined, json: boolean) => Promise<number>;

/** Whether an action takes, may take or does not take an image; its code, loaded when it runs. */
const ACTIONS: Readonly<
  Record<string, { image: 'needs' | 'may' | 'none'; run: () => Promise<StoreAction> }>
> = {
  ls: { image: 'none', run: async () => (await import('../store/list.js')).runList },
  rm: { image: 'needs', run: async () => (await import('../store/remove.js')).runRemove },
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
  const run = await action.run();
  return run(storeOf(options, process.env), image, options.json === true);
}

/** Prints where the store is, whether it exists yet or not. */
async function runPath(store: string, _image: string | undefined, json: boolean): Promise<number> {
  process.stdout.write(json ? jsonLine({ store }) : `${store}\n`);
  return 0;
}
