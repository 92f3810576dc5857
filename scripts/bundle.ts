/**
 * Bundles the command and the code of its threads into `dist/bundle/`, as CommonJS: Node loads one
 * such file with 10 to 20 ms less CPU time than ES modules. A thread loads its modules anew each
 * time it starts: from one file that takes a third of the CPU time that it takes from 200.
 */
import { readFileSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type BuildOptions, build, type Plugin } from 'esbuild';

const DIST = fileURLToPath(new URL('../', import.meta.url));
const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const BUNDLE = `${DIST}bundle/`;

/** Addons and packages that look for files of their own stay as they are installed. */
const EXTERNAL = ['@mongodb-js/zstd', 'ora', 'piscina'];

/**
 * What is used of undici. Its own index loads fetch, caches, proxies and WebSocket as well, a third
 * of a thread's code: without them a pull of a small image takes 0.55 s of CPU time in place of
 * 0.63 s.
 */
const UNDICI = `
  exports.Client = require('undici/lib/dispatcher/client.js');
  exports.buildConnector = require('undici/lib/core/connect.js');
`;

/**
 * yargs would measure help with it, but zpull prints its own help. The expressions of Unicode's
 * tables take 40 ms to compile, half the time that Node takes to start.
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

const COMMON = {
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'cjs',
  external: EXTERNAL,
  logLevel: 'warning',
  plugins: [replacements],
  define: { 'import.meta.url': 'fileUrl' },
  banner: { js: "const fileUrl=require('node:url').pathToFileURL(__filename).href;" },
} as const satisfies BuildOptions;

/** Of the command: Node compiles all of it at each start. `--debug` has stacks mapped back. */
const MINIFIED = { minify: true, sourcemap: 'linked', sourcesContent: false } as const satisfies BuildOptions;

/**
 * Writes the bundles. They lie as deep below the package as the sources, so that paths relative to
 * `import.meta.url` hold: `cli/main.cjs`, which parses the command line; `cli/commands.cjs`, which
 * it loads to run a command; `threads/entry.cjs`, the code of a thread; `page/`, what a page of
 * `zpull bench --html` has in it.
 * @throws Error of esbuild when a module cannot be resolved
 */
export async function bundle(): Promise<void> {
  rmSync(BUNDLE, { recursive: true, force: true });
  const commands = await bundleMain();
  const loaders = [...commands].map((path) => {
    const quoted = JSON.stringify(path);
    return `exports[${quoted}] = () => require(${quoted});`;
  });
  await build({
    ...COMMON,
    ...MINIFIED,
    stdin: { contents: loaders.join('\n'), resolveDir: `${DIST}src/cli` },
    outfile: `${BUNDLE}cli/commands.cjs`,
  });
  await build({
    ...COMMON,
    entryPoints: [`${DIST}workers/entry.cjs`],
    outfile: `${BUNDLE}threads/entry.cjs`,
  });
  await bundlePage();
}

/**
 * Bundles what a page of `zpull bench --html` draws with. uPlot is not installed with zpull, and each
 * page is a copy of it: its licence goes along.
 */
async function bundlePage(): Promise<void> {
  const licence = `/*! uPlot, https://github.com/leeoniya/uPlot\n${readFileSync(`${ROOT}node_modules/uplot/LICENSE`, 'utf8')}\n*/`;
  await build({
    bundle: true,
    minify: true,
    platform: 'browser',
    target: 'es2022',
    format: 'iife',
    logLevel: 'warning',
    banner: { js: licence },
    entryPoints: {
      page: `${ROOT}src/measure/html/browser/main.ts`,
      style: `${ROOT}src/measure/html/browser/page.css`,
    },
    outdir: `${BUNDLE}page`,
  });
}

/**
 * Bundles what parses the command line; returns what it imports dynamically, which it takes from
 * `commands.cjs`.
 */
async function bundleMain(): Promise<ReadonlySet<string>> {
  const imported = new Set<string>();
  const commandsApart: Plugin = {
    name: 'commands-apart',
    setup({ onResolve, onLoad }) {
      onResolve({ filter: /./ }, ({ kind, path }) => {
        if (path === './commands.cjs') return { path, external: true };
        return kind === 'dynamic-import' ? { path, namespace: 'command' } : undefined;
      });
      onLoad({ filter: /./, namespace: 'command' }, ({ path }) => {
        imported.add(path);
        return { contents: `module.exports = require('./commands.cjs')[${JSON.stringify(path)}]();` };
      });
    },
  };
  await build({
    ...COMMON,
    ...MINIFIED,
    entryPoints: [`${DIST}src/cli/main.js`],
    outfile: `${BUNDLE}cli/main.cjs`,
    plugins: [commandsApart, replacements],
  });
  return imported;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await bundle();
