import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fromFailure } from '../../src/format/error.js';
import { createCredentials } from '../../src/registry/credentials.js';
import { createWaitBudget } from '../../src/registry/retry-after.js';
import { createRegistrySession, type RegistrySession } from '../../src/registry/session.js';
import { temporaryDirectory } from './temporary.js';

/**
 * A session with the credentials of an auth file with this content; `{host}` in it stands for the registry. A miss of the network ends
 * what is asked.
 */
export function sessionWithLogin(
  t: TestContext,
  host: string,
  content: object,
): { readonly session: RegistrySession; readonly authfile: string } {
  const authfile = join(temporaryDirectory(t), 'auth.json');
  writeFileSync(authfile, JSON.stringify(content).replaceAll('{host}', host));
  const session = createRegistrySession({
    host,
    repository: 'team/app',
    tlsVerify: true,
    environment: {},
    connectTimeoutMs: 2000,
    idleTimeoutMs: 2000,
    answerTimeoutMs: 2000,
    userAgent: 'zpull-test',
    waits: createWaitBudget(),
    tokens: new Map(),
    credentials: createCredentials({ host, repository: 'team/app', authfile, env: {} }),
    patience: {
      received: () => {},
      miss: async (reason) => {
        throw fromFailure(reason);
      },
      pause: () => () => {},
    },
  });
  t.after(() => session.close());
  return { session, authfile };
}
