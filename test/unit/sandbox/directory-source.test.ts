import assert from 'node:assert/strict';
import { chmodSync, linkSync, mkdirSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { TarReader } from '../../../src/sandbox/tar-reader.js';
import { directoryTar } from '../../support/layers/directory-source.js';
import { temporaryDirectory } from '../../support/temporary.js';

interface Seen {
  readonly name: string;
  readonly type: string;
  readonly link: string;
  readonly mode: number;
  readonly seconds: number;
  content: string;
}

function read(dir: string): Seen[] {
  const seen: Seen[] = [];
  const reader = new TarReader({
    entry({ name, type, linkName, mode, mtime }) {
      const [text, link] = [name.toString('latin1'), linkName.toString()];
      seen.push({ name: text, type, link, mode, seconds: mtime.seconds, content: '' });
    },
    content(bytes) {
      seen.at(-1)!.content += bytes.toString();
    },
    trailer: () => {},
  });
  for (const piece of directoryTar(dir)) reader.push(piece);
  reader.end();
  return seen;
}

test('a tree becomes a tar in the order of its names, with modes, times, links and contents', (t) => {
  const dir = temporaryDirectory(t);
  mkdirSync(join(dir, 'b'));
  writeFileSync(join(dir, 'b', 'file'), 'content');
  linkSync(join(dir, 'b', 'file'), join(dir, 'same'));
  symlinkSync('nowhere', join(dir, 'b', 'link'));
  writeFileSync(Buffer.concat([Buffer.from(`${dir}/caf`), Buffer.from([0xe9])]), '');
  chmodSync(join(dir, 'b', 'file'), 0o4755);
  utimesSync(join(dir, 'b', 'file'), 1000, 1234);
  const seen = read(dir).map(({ seconds, mode, ...rest }) => ({
    ...rest,
    ...(rest.name === 'b/file' ? { seconds, mode } : {}),
  }));
  assert.deepEqual(seen, [
    { name: 'b/', type: '5', link: '', content: '' },
    { name: 'b/file', type: '0', link: '', content: 'content', seconds: 1234, mode: 0o4755 },
    { name: 'b/link', type: '2', link: 'nowhere', content: '' },
    { name: 'caf\xe9', type: '0', link: '', content: '' },
    { name: 'same', type: '1', link: 'b/file', content: '' },
  ]);
});

test('a content larger than one read is complete', (t) => {
  const dir = temporaryDirectory(t);
  const content = 'line\n'.repeat(300_000);
  writeFileSync(join(dir, 'large'), content);
  assert.equal(read(dir)[0]!.content, content);
});

test('a socket is refused', async (t) => {
  const dir = temporaryDirectory(t);
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(join(dir, 's'), resolve);
  });
  t.after(() => server.close());
  assert.deepEqual(read(dir), []);
});
