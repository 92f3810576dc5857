import { removeImage } from '../../api/store.js';
import type { StoreArguments } from '../commands/store.js';
import { jsonLine, printable } from '../printable.js';

/** `zpull store rm IMAGE`: prints the digests of what was removed, one a platform. */
export async function runRemove({ store, image, json, warn }: StoreArguments): Promise<number> {
  const removed = await removeImage({ store, warn, image: image! });
  if (json) process.stdout.write(jsonLine({ removed }));
  else for (const { digest, platform } of removed) process.stdout.write(`${digest} ${printable(platform)}\n`);
  return 0;
}
