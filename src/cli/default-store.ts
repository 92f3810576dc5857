import { homedir } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';

/**
 * The absolute path of the store when none is given: `$ZPULL_STORE`, else `$XDG_DATA_HOME/zpull`, else
 * `~/.local/share/zpull`. A relative XDG_DATA_HOME is ignored, as the XDG base directory specification asks.
 */
export function defaultStore(env: NodeJS.ProcessEnv): string {
  const { ZPULL_STORE: store, XDG_DATA_HOME: dataHome } = env;
  if (store !== undefined && store !== '') return resolve(store);
  if (dataHome !== undefined && isAbsolute(dataHome)) return join(dataHome, 'zpull');
  return join(homedir(), '.local', 'share', 'zpull');
}
