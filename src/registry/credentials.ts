import { homedir } from 'node:os';
import { join } from 'node:path';
import {
  fileText,
  MAX_CONFIGURATION_FILE_BYTES,
  readFileOrPipe,
  readRegularFile,
} from '../files/read-input.js';
import { PullError } from '../format/error.js';
import {
  type AuthFile,
  type Offer,
  offersOf,
  parseAuthFile,
  runCredentialHelper,
  type Secret,
} from './auth-file.js';

/** A secret and the name of its source, for messages. */
export interface Credential {
  readonly secret: Secret;
  readonly from: string;
}

/** The credentials of one repository, searched for when a registry requires them. */
export interface Credentials {
  /**
   * The first credentials found, in a new search: those of helpers expire. Undefined: there are
   * none.
   * @throws PullError `option-malformed` for a file that is malformed, or was named and cannot be
   *   read; `unauthorized` for a helper that fails
   */
  find(): Promise<Credential | undefined>;
  /** Whether there may be some, without running a helper. @throws as `find` */
  mayHave(): Promise<boolean>;
  /** The names of the sources. */
  readonly sources: readonly string[];
  /** Ends a running helper. */
  close(): void;
}

export interface CredentialOptions {
  readonly host: string;
  readonly repository: string;
  /** The only credentials to use. */
  readonly given?: { readonly username: string; readonly password: string } | undefined;
  /** The only file to look into. */
  readonly authfile?: string | undefined;
  readonly env: NodeJS.ProcessEnv;
  /** Receives warnings about skipped sources. */
  readonly warn?: ((message: string) => void) | undefined;
  /** Ends the wait for a file that is a pipe. */
  readonly signal?: AbortSignal | undefined;
}

type NamedSourceOptions = Pick<CredentialOptions, 'authfile' | 'env' | 'signal'>;

/** A file or variable with credentials. */
interface Source {
  readonly name: string;
  /** Undefined when it is absent. @throws PullError `option-malformed` */
  read(): Promise<AuthFile | undefined>;
}

/**
 * Reads a file that the user named even if no credentials are required: a wrong name should not go
 * unnoticed.
 * @throws PullError `option-malformed` when it is absent or cannot be read
 */
export async function checkAuthFile(options: NamedSourceOptions): Promise<void> {
  await namedSource(options)?.read();
}

/** The credentials for a repository, from the sources of podman, skopeo, docker and crane. */
export function createCredentials(options: CredentialOptions): Credentials {
  const { host, repository, given, env } = options;
  const warn = warnOnce(options.warn);
  const named = namedSource(options);
  const sources = named === undefined ? usualSources(env, warn) : [named];
  const ending = new AbortController();

  async function* offers(): AsyncGenerator<{ offer: Offer; source: Source }> {
    for (const source of sources) {
      const file = await source.read();
      if (file === undefined) continue;
      for (const offer of offersOf(file, host, repository)) yield { offer, source };
    }
  }

  return {
    sources: given === undefined ? sources.map(({ name }) => name) : ['the command line'],
    mayHave: async () => given !== undefined || (await offers().next()).done === false,
    close: () => ending.abort(),
    async find() {
      if (given !== undefined) return { secret: { kind: 'password', ...given }, from: 'the command line' };
      for await (const { offer, source } of offers()) {
        if (offer.kind === 'secret') return { secret: offer.secret, from: source.name };
        const secret = await runCredentialHelper({ ...offer, signal: ending.signal });
        const from = `docker-credential-${offer.name}, which ${source.name} names`;
        if (secret === 'not-installed') warn(`the credential helper ${from}, is not on PATH`);
        else if (secret !== undefined) return { secret, from };
      }
      return undefined;
    },
  };
}

/** Podman's files, then docker's; as in docker, the variable precedes the file. */
function usualSources(env: NodeJS.ProcessEnv, warn: (message: string) => void): Source[] {
  const home = env['HOME'] || homedir();
  const runtime = env['XDG_RUNTIME_DIR'];
  const run = runtime ? join(runtime, 'containers') : `/run/containers/${process.getuid?.()}`;
  const config = env['XDG_CONFIG_HOME'] || join(home, '.config');
  const docker = env['DOCKER_CONFIG'] || join(home, '.docker');
  const text = env['DOCKER_AUTH_CONFIG'];
  const name = '$DOCKER_AUTH_CONFIG';
  return [
    fileSource(join(run, 'auth.json'), warn),
    fileSource(join(config, 'containers', 'auth.json'), warn),
    ...(text ? [{ name, read: async () => parseAuthFile(text, name) }] : []),
    fileSource(join(docker, 'config.json'), warn),
  ];
}

/** The only source, if the user named a file. */
function namedSource({ authfile, env, signal }: NamedSourceOptions): Source | undefined {
  const path = authfile ?? (env['REGISTRY_AUTH_FILE'] || undefined);
  if (path === undefined) return undefined;
  return {
    name: path,
    async read() {
      const read = await readFileOrPipe(path, MAX_CONFIGURATION_FILE_BYTES, signal);
      if ('bytes' in read) return parseAuthFile(fileText(read.bytes), path);
      throw read.kind === 'absent' ? absent(path) : unfit(path, read.problem);
    },
  };
}

/** A file that may be absent; one that cannot be read is skipped with a warning. */
function fileSource(path: string, warn: (message: string) => void): Source {
  return {
    name: path,
    async read() {
      const read = readRegularFile(path, MAX_CONFIGURATION_FILE_BYTES);
      if ('bytes' in read) return parseAuthFile(fileText(read.bytes), path);
      if (read.kind === 'absent') return undefined;
      warn(`the file of credentials ${path} ${read.problem}, and is skipped`);
      return undefined;
    },
  };
}

/** Reports each warning once: credentials are searched for again when a token is renewed. */
function warnOnce(warn: CredentialOptions['warn']): (message: string) => void {
  const reported = new Set<string>();
  return (message) => {
    if (reported.has(message)) return;
    reported.add(message);
    warn?.(message);
  };
}

function unfit(path: string, problem: string): PullError {
  return new PullError('option-malformed', `the file of credentials ${path} ${problem}`, {
    hint: 'check what it is and who may read it, or name another file (or a pipe that is written to) with --authfile',
  });
}

function absent(path: string): PullError {
  return new PullError('option-malformed', `there is no file ${path} to read credentials from`, {
    hint: '--authfile and $REGISTRY_AUTH_FILE name a file that "podman login" or "docker login" wrote',
  });
}
