/**
 * Records real pulls in a terminal as `docs/pull.svg`, by script(1): a pull that is broken off, the
 * same again, and the next version. The registry is a sandbox as far away as the internet.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeImage } from '../src/sandbox/image-writer.js';
import { startRegistry } from '../src/sandbox/registry-server.js';
import { DEFAULT_LAYER_SHARES, treeTars } from '../src/sandbox/sample-tree.js';
import { type TerminalChunk, terminalPicture } from './terminal-picture.js';

const BIN = fileURLToPath(new URL('../../bin/zpull.cjs', import.meta.url));
const PICTURE = fileURLToPath(new URL('../../docs/pull.svg', import.meta.url));
const SIZE = { columns: 92, rows: 15 };
const TITLE = 'zpull in a terminal: a pull that is broken off, the same again, and an update';
const NAME = 'registry.example/app';

const SESSION = `
stty cols ${SIZE.columns} rows ${SIZE.rows}
prompt() { printf '\\033[32m$\\033[39m %s\\n' "$*"; sleep 0.7; }
prompt zpull ${NAME}:v1
timeout --foreground --signal INT 3 zpull ${NAME}:v1
prompt zpull ${NAME}:v1
zpull ${NAME}:v1
prompt zpull ${NAME}:v2
zpull ${NAME}:v2
`;

const directory = mkdtempSync(join(tmpdir(), 'zpull-record-'));
try {
  writeFileSync(PICTURE, terminalPicture(TITLE, await record(), SIZE));
} finally {
  rmSync(directory, { recursive: true });
}

async function record(): Promise<TerminalChunk[]> {
  const layout = join(directory, 'layout');
  for (const version of [1, 2] as const) {
    const tars = treeTars({ seed: 1, fileCount: 1500, layerShares: DEFAULT_LAYER_SHARES, version });
    await writeImage({ layoutDir: layout, ref: `v${version}`, tars });
  }
  const registry = await startRegistry({ layout, latencyMs: 40, rateBytes: 9 * 2 ** 20 });
  try {
    return await play(registry.host);
  } finally {
    await registry.close();
  }
}

async function play(host: string): Promise<TerminalChunk[]> {
  const conf = join(directory, 'registries.conf');
  writeFileSync(conf, `[[registry]]\nprefix = "registry.example"\nlocation = "${host}"\ninsecure = true\n`);
  const command = join(directory, 'zpull');
  writeFileSync(command, `#!/bin/sh\nexec '${process.execPath}' '${BIN}' --platform amd64 "$@"\n`);
  chmodSync(command, 0o755);
  const session = join(directory, 'session');
  writeFileSync(session, SESSION);
  const { CI: _, NO_COLOR: __, ...env } = process.env;
  const child = spawn('script', ['--quiet', '--command', `bash '${session}'`, '/dev/null'], {
    env: {
      ...env,
      PATH: `${directory}:${env['PATH']}`,
      TERM: 'xterm-256color',
      ZPULL_STORE: join(directory, 'store'),
      CONTAINERS_REGISTRIES_CONF: conf,
    },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const chunks: TerminalChunk[] = [];
  const startedMs = performance.now();
  child.stdout.setEncoding('utf8');
  child.stdout.on('data', (text: string) => chunks.push({ atMs: performance.now() - startedMs, text }));
  await once(child, 'close');
  return chunks;
}
