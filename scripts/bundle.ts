/**
 * Bundles the command and the code of its threads into `dist/bundle/`. A thread loads its modules anew each time it starts: from one
 * file that takes a third of the CPU time that it takes from 200.
 */
import { readdirSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type BuildOptions, build, type Plugin } from 'esbuild';

const DIST = fileURLToPath(new URL('../', import.meta.url));
const BUNDLE = `${DIST}bundle/`;
const COMMANDS = `${DIST}src/cli/commands/`;

/** Addons and packages that look for files of their own stay as they are installed. */
const EXTERNAL = ['@mongodb-js/zstd', 'ora', 'piscina'];

/** Packages written in CommonJS ask for Node's modules by `require`. */
const REQUIRE = "import{createRequire}from'node:module';const require=createRequire(import.meta.url);";

/** `import.meta.url` in CommonJS. */
const FILE_URL = "const fileUrl=require('node:url').pathToFileURL(__filename).href;";

/**
 * What is used of undici. Its own index loads fetch, caches, proxies and WebSocket as well, a third of a thread's code: without them a pull of a
 * small image takes 0.55 s of CPU time in place of 0.63 s.
 */
const UNDICI = `
  exports.Client = require('undici/lib/dispatcher/client.js');
  exports.buildConnector = require('undici/lib/core/connect.js');
`;

/**
 * yargs measures the help that it prints, which zpull does not let it print. The expressions of Unicode's tables take 40 ms to compile, half the
 * time that Node takes to start.
 */
const STRING_WIDTH = 'export default (text) => text.length;';

const replacements: Plugin = {
  name: 'replacements',
  setup({ onResolve, onLoad }) {
    const replaced: Readonly<Record<string, string>> = { undici: UNDICI, 'string-width': STRING_WIDTH };
    onResolve({ filter: /^(undici|string-width)$/ }, ({ path }) => ({ path, namespace: 'replaced' }));
    onLoad({ filter: /./, namespace: 'replaced' }, ({ path }) => ({
      contents: replaced[path]!,
      resolveDir: DIST,
    }));
  },
};

/** What a file imports only when it needs it stays a file of its own. */
const dynamicImportsApart: Plugin = {
  name: 'dynamic-imports-apart',
  setup({ onResolve }) {
    onResolve({ filter: /^\.\.?\// }, ({ kind, path }) =>
      kind === 'dynamic-import' ? { path, external: true } : undefined,
    );
  },
};

const COMMON = {
  bundle: true,
  platform: 'node',
  target: 'node20',
  external: EXTERNAL,
  logLevel: 'warning',
  plugins: [replacements],
} as const satisfies BuildOptions;

/**
 * Writes the bundles. They lie as deep below the package as the sources, so that paths relative to `import.meta.url` hold. What reads the command
 * line is one file in CommonJS, which Node loads 10 ms sooner than modules; commands and their parts are modules that are loaded when they are needed; a
 * thread's code is one file.
 * @throws Error of esbuild when a module cannot be resolved
 */
export async function bundle(): Promise<void> {
  rmSync(BUNDLE, { recursive: true, force: true });
  await build({
    ...COMMON,
    entryPoints: [`${DIST}src/cli/main.js`],
    outfile: `${BUNDLE}cli/main.cjs`,
    format: 'cjs',
    minify: true,
    plugins: [replacements, dynamicImportsApart],
    define: { 'import.meta.url': 'fileUrl' },
    banner: { js: FILE_URL },
  });
  await build({
    ...COMMON,
    entryPoints: [
      `${DIST}src/api/errors.js`,
      ...readdirSync(COMMANDS)
        .filter((name) => name.endsWith('.js'))
        .map((name) => `${COMMANDS}${name}`),
    ],
    outbase: `${DIST}src`,
    outdir: BUNDLE,
    chunkNames: 'cli/[name]-[hash]',
    format: 'esm',
    splitting: true,
    banner: { js: REQUIRE },
  });
  await build({
    ...COMMON,
    entryPoints: [`${DIST}workers/entry.cjs`],
    outfile: `${BUNDLE}threads/entry.cjs`,
    format: 'cjs',
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await bundle();
