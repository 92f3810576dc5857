import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fromFailure } from '../../src/format/error.js';
import { createWaitBudget, type Wait } from '../../src/registry/backoff.js';
import { createCredentials } from '../../src/registry/credentials.js';
import type { SessionOptions } from '../../src/registry/exchange.js';
import { createRegistrySession, type RegistrySession } from '../../src/registry/session.js';
import { temporaryDirectory } from './temporary.js';

/** What a session reported to its pull, and the lines of its log. */
interface Reports {
  receivedBytes: number;
  readonly misses: string[];
  readonly waits: Wait[];
  readonly lines: string[];
}

/** Options that allow so many misses, each without a pause, and what they report. */
export function sessionOptions(host: string, misses = 0): { options: SessionOptions; reports: Reports } {
  const reports: Reports = { receivedBytes: 0, misses: [], waits: [], lines: [] };
  const options: SessionOptions = {
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
    retryPolicy: {
      received: (bytes) => {
        reports.receivedBytes += bytes;
      },
      miss: async (reason) => {
        reports.misses.push(reason.message);
        if (reports.misses.length > misses) throw fromFailure(reason);
      },
      pause: (wait) => {
        reports.waits.push(wait);
        return () => {};
      },
    },
    debug: (line) => reports.lines.push(line),
  };
  return { options, reports };
}

/** A session for `team/app` at a host, and what it reports. */
export function startSession(
  t: TestContext,
  host: string,
  more: Partial<SessionOptions> = {},
  misses = 0,
): { readonly session: RegistrySession; readonly reports: Reports } {
  const { options, reports } = sessionOptions(host, misses);
  const session = createRegistrySession({ ...options, ...more });
  t.after(() => session.close());
  return { session, reports };
}

/** A session with the credentials of an auth file with this content; `{host}` in it stands for the registry. */
export function sessionWithLogin(
  t: TestContext,
  host: string,
  content: object,
): { readonly session: RegistrySession; readonly authfile: string } {
  const authfile = join(temporaryDirectory(t), 'auth.json');
  writeFileSync(authfile, JSON.stringify(content).replaceAll('{host}', host));
  const credentials = createCredentials({ host, repository: 'team/app', authfile, env: {} });
  return { session: startSession(t, host, { credentials }).session, authfile };
}
