import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { PullError } from '../format/error.js';
import { type AuthFile, type Offer, offersOf, parseAuthFile, type Secret } from './auth-file.js';

/** A secret and where it was found, which may be told. */
export interface Credential {
  readonly secret: Secret;
  readonly from: string;
}

/** The credentials of one repository, looked for when a registry asks for them. */
export interface Credentials {
  /**
   * The first credentials that there are, looked up anew: helpers hand out what expires. Undefined: there are none.
   * @throws PullError `option-malformed` for a file that cannot be read, `unauthorized` for a helper that fails
   */
  find(): Promise<Credential | undefined>;
  /** Whether there may be some, as far as that is known without running a helper. @throws as `find` */
  mayHave(): boolean;
  /** Where they are looked for, in words. */
  readonly places: readonly string[];
  /** Ends a helper that runs. */
  close(): void;
}

export interface CredentialOptions {
  readonly host: string;
  readonly repository: string;
  /** These and no others. */
  readonly given?: { readonly username: string; readonly password: string } | undefined;
  /** The only file to look into. */
  readonly authfile?: string | undefined;
  readonly env: NodeJS.ProcessEnv;
}

/** Where credentials are written down. */
interface Source {
  readonly name: string;
  /** Undefined when it is not there. @throws PullError `option-malformed` */
  read(): AuthFile | undefined;
}

/**
 * The credentials for a repository, where podman, skopeo, docker and crane look for them.
 * @throws PullError `option-malformed` when a file that was named is not there or cannot be read
 */
export function createCredentials(options: CredentialOptions): Credentials {
  const { host, repository, given, authfile, env } = options;
  const named = authfile ?? nonEmpty(env['REGISTRY_AUTH_FILE']);
  const sources = named === undefined ? usualSources(env) : [fileSource(named)];
  // A file that was named is looked at even if nobody asks for credentials: a wrong name should not go unnoticed.
  if (named !== undefined && sources[0]!.read() === undefined) throw absent(named);
  const ending = new AbortController();

  function* offers(): Generator<{ offer: Offer; source: Source }> {
    for (const source of sources) {
      const file = source.read();
      if (file === undefined) continue;
      for (const offer of offersOf(file, host, repository)) yield { offer, source };
    }
  }

  return {
    places: given === undefined ? sources.map(({ name }) => name) : ['the command line'],
    mayHave: () => given !== undefined || offers().next().done === false,
    close: () => ending.abort(),
    async find() {
      if (given !== undefined) return { secret: { kind: 'password', ...given }, from: 'the command line' };
      for (const { offer, source } of offers()) {
        if (offer.kind === 'secret') return { secret: offer.secret, from: source.name };
        // Starting processes takes a module that few pulls need.
        const { askHelper } = await import('./credential-helper.js');
        const secret = await askHelper({ ...offer, signal: ending.signal });
        const from = `docker-credential-${offer.name}, which ${source.name} names`;
        if (secret !== undefined) return { secret, from };
      }
      return undefined;
    },
  };
}

/** Containers' files, then docker's; docker itself looks at the variable before its file. */
function usualSources(env: NodeJS.ProcessEnv): Source[] {
  const home = nonEmpty(env['HOME']) ?? homedir();
  const runtime = nonEmpty(env['XDG_RUNTIME_DIR']);
  const run = runtime === undefined ? `/run/containers/${process.getuid?.()}` : join(runtime, 'containers');
  const config = nonEmpty(env['XDG_CONFIG_HOME']) ?? join(home, '.config');
  const docker = nonEmpty(env['DOCKER_CONFIG']) ?? join(home, '.docker');
  const variable = nonEmpty(env['DOCKER_AUTH_CONFIG']);
  return [
    fileSource(join(run, 'auth.json')),
    fileSource(join(config, 'containers', 'auth.json')),
    ...(variable === undefined ? [] : [variableSource('$DOCKER_AUTH_CONFIG', variable)]),
    fileSource(join(docker, 'config.json')),
  ];
}

function variableSource(name: string, text: string): Source {
  return { name, read: () => parseAuthFile(text, name) };
}

function fileSource(path: string): Source {
  return {
    name: path,
    read() {
      const text = readText(path);
      return text === undefined ? undefined : parseAuthFile(text, path);
    },
  };
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw new PullError('option-malformed', `the credentials in ${path} cannot be read (${code})`, {
      hint: 'check who may read the file, or name another with --authfile',
    });
  }
}

function absent(path: string): PullError {
  return new PullError('option-malformed', `there is no file ${path} to read credentials from`, {
    hint: '--authfile and $REGISTRY_AUTH_FILE name a file that "podman login" or "docker login" wrote',
  });
}

function nonEmpty(value: string | undefined): string | undefined {
  return value === '' ? undefined : value;
}
