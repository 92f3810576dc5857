import { posix } from 'node:path';

/**
 * The import rule of ARCHITECTURE.md: which room may import which, and which room owns which dependency.
 * A room is a folder of src, `index` (src/index.ts), workers, bench, scripts or test.
 */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  cli: ['api', 'files', 'sandbox', 'measure'],
  measure: ['api', 'files', 'format'],
  index: ['api'],
  api: ['client', 'pull', 'copy', 'export', 'pool', 'store', 'format'],
  client: ['pull', 'copy', 'export', 'pool', 'store', 'sandbox', 'format'],
  copy: ['pull', 'export', 'pool', 'plan', 'registry', 'store', 'files', 'format'],
  pull: ['pool', 'plan', 'registry', 'store', 'files', 'format'],
  export: ['pool', 'store', 'files', 'format'],
  workers: ['pool', 'registry', 'store', 'copy', 'export', 'files', 'format'],
  pool: ['files', 'format'],
  registry: ['files', 'format'],
  store: ['pool', 'files', 'format'],
  files: ['format'],
  plan: ['format'],
  sandbox: ['files', 'format'],
  format: [],
  bench: ['api', 'measure', 'cli', 'sandbox', 'format', 'pull', 'test'],
  scripts: ['cli', 'sandbox', 'format'],
};

/** Rooms whose types alone another may import, since messages have them. */
const MAY_IMPORT_TYPES: Readonly<Record<string, readonly string[]>> = {
  pool: ['plan', 'registry', 'store'],
  workers: ['plan'],
};

/** Workers share messages and memory with the main thread; the pool itself belongs to the main thread. */
const POOL_FILES_OF_WORKERS = [
  'src/pool/messages.ts',
  'src/pool/shared-memory.ts',
  'src/pool/stage-clock.ts',
  'src/pool/semaphore.ts',
  'src/pool/cores.ts',
];

const MAY_USE: Readonly<Record<string, readonly string[]>> = {
  piscina: ['pool'],
  undici: ['registry'],
  fzstd: ['workers'],
  zstddec: ['workers'],
  'smol-toml': ['registry'],
  yargs: ['cli'],
  'simple-statistics': ['measure'],
  uplot: ['measure'],
  'puppeteer-core': ['test'],
  ora: ['cli'],
  'fast-check': ['test'],
  esbuild: ['scripts'],
  '@mongodb-js/zstd': ['workers', 'sandbox', 'bench', 'test'],
};

/** Rooms without I/O, clock or threads: no builtin but node:buffer. */
const PURE = ['format', 'plan'];

/** Represents the argument of an `import()` that is no plain string, which no rule can check. */
const COMPUTED = '(computed)';

/**
 * The specifiers a source imports or re-exports from, statically, as types or with `import()`. Static ones are looked
 * for at the beginning of a line, where the language and the formatter put them.
 */
export function importsOf(text: string): string[] {
  const code = withoutComments(text);
  const fixed = code.matchAll(/^(?:import|export)\b(?:[^'"`;]*?\bfrom)?\s*['"]([^'"\n]+)['"]/gm);
  const dynamic = code.matchAll(/\bimport\s*\(\s*(?:['"`]([^'"`$\n]+)['"`]\s*\))?/g);
  return [...fixed, ...dynamic].map(([, specifier]) => specifier ?? COMPUTED);
}

/** Those of them that are not `import type` or `export type` alone. */
function valueImportsOf(text: string): string[] {
  return importsOf(text.replace(/^(?:import|export) type\b[^'"`;]*?\bfrom\s*['"][^'"\n]+['"]/gm, ''));
}

/** Returns the violations of the rule in the source `path`, a sentence each. */
export function violationsOf(path: string, text: string): string[] {
  const room = roomOf(path);
  if (room === undefined) return [`${path} lies in no room`];
  const values = new Set(valueImportsOf(text));
  return importsOf(text).flatMap((specifier) => {
    const problem = problemOf(room, path, specifier, !values.has(specifier));
    return problem === undefined ? [] : [`${path} imports ${specifier}: ${problem}`];
  });
}

function problemOf(room: string, path: string, specifier: string, onlyTypes: boolean): string | undefined {
  if (specifier === COMPUTED) return room === 'test' ? undefined : 'only a plain string can be checked';
  if (specifier.startsWith('node:')) {
    if (!PURE.includes(room) || specifier === 'node:buffer') return undefined;
    return `${room} is pure, it may use no builtin but node:buffer`;
  }
  if (specifier.startsWith('.')) return localProblem(room, path, specifier, onlyTypes);
  const rooms = MAY_USE[packageOf(specifier)];
  if (rooms === undefined) return 'it belongs to no room';
  return rooms.includes(room) ? undefined : `only ${rooms.join(', ')} may`;
}

function localProblem(room: string, path: string, specifier: string, onlyTypes: boolean): string | undefined {
  const target = posix.join(posix.dirname(path), specifier).replace(/\.js$/, '.ts');
  const other = roomOf(target);
  if (other === undefined) return 'it lies in no room';
  if (other === room || room === 'test') return undefined;
  if (onlyTypes && MAY_IMPORT_TYPES[room]?.includes(other)) return undefined;
  const allowed = MAY_IMPORT[room]!;
  if (!allowed.includes(other)) return `${room} may import ${allowed.join(', ') || 'no other room'} only`;
  if (room !== 'workers' || other !== 'pool' || POOL_FILES_OF_WORKERS.includes(target)) return undefined;
  return `of the pool, workers may import ${POOL_FILES_OF_WORKERS.join(' and ')} only`;
}

function roomOf(path: string): string | undefined {
  if (path === 'src/index.ts') return 'index';
  const [folder, inner, ...rest] = path.split('/');
  const room = folder === 'src' && rest.length > 0 ? inner : folder === 'src' ? undefined : folder;
  return room === 'test' || (room !== undefined && Object.hasOwn(MAY_IMPORT, room)) ? room : undefined;
}

/** `@scope/name/path` → `@scope/name`. */
function packageOf(specifier: string): string {
  return specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
}

/** The text with comments blanked; strings are stepped over, since they may hold what looks like a comment. */
function withoutComments(text: string): string {
  return text.replace(
    /('(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`)|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g,
    (_, literal: string | undefined) => literal ?? ' ',
  );
}

/** Functions that work on a descriptor, which comes from src/files, or on no file. */
const BY_DESCRIPTOR = [
  'closeSync',
  'constants',
  'FileHandle',
  'fstatSync',
  'fsyncSync',
  'ftruncateSync',
  'readSync',
  'statfs',
  'statfsSync',
  'Stats',
  'StatsFs',
  'writeSync',
];

/** Other functions of node:fs that sources of the store may use, and why. */
const BY_PATH: Readonly<Record<string, readonly string[]>> = {
  // The root, which the user named: it may be a link.
  'src/store/paths.ts': ['statSync'],
  // Destinations and roots, which the user named.
  'src/export/export-schemes.ts': ['lstatSync', 'readdirSync', 'statSync'],
  // /proc
  'src/store/leases.ts': ['readFileSync', 'readlinkSync'],
  // Programs
  'workers/opaque/zstd-engine.ts': ['accessSync'],
};

/** Sources that write exports to their destinations, and open nothing of the store themselves. */
const EXPORTING = [
  'workers/export/tree-directories.ts',
  'workers/export/write-files.ts',
  'workers/export/write-specials.ts',
  'workers/export/write-tar.ts',
];

/**
 * What a source of the store or of a worker takes from node:fs to open, read, list or delete files by their paths: that is for src/files,
 * where neither links nor FIFOs are followed.
 */
export function filesByPath(path: string, text: string): string[] {
  if (!path.startsWith('src/store/') && !path.startsWith('workers/')) return [];
  if (EXPORTING.includes(path)) return [];
  const imports = withoutComments(text).matchAll(
    /^import\s+(?:type\s+)?([^'";]*?)\s*from\s*'(?:node:)?fs(?:\/promises)?'/gm,
  );
  return [...imports].flatMap(([, names = '']) => {
    const [, list] = /^\{([\s\S]*)\}$/.exec(names) ?? [];
    if (list === undefined) return [`${path} imports all of node:fs`];
    return list
      .split(',')
      .map((name) =>
        name
          .trim()
          .replace(/^type\s+/, '')
          .replace(/\s+as\s.*$/, ''),
      )
      .filter((name) => name !== '' && ![...BY_DESCRIPTOR, ...(BY_PATH[path] ?? [])].includes(name))
      .map((name) => `${path} imports ${name}`);
  });
}
