import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { DecodedQueue } from '../../../../workers/opaque/decoded-queue.js';
import { ProgramFrame } from '../../../../workers/opaque/zstd-program.js';
import { temporaryDirectory } from '../../../support/temporary.js';

/** Feeds a frame to a program of the name zstd that does this, or to none. */
async function feed(t: TestContext, script?: string): Promise<void> {
  const directory = temporaryDirectory(t);
  if (script !== undefined) writeFileSync(join(directory, 'zstd'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  const path = process.env['PATH'];
  process.env['PATH'] = directory;
  const frame = new ProgramFrame(2 ** 27, new DecodedQueue(() => {}));
  process.env['PATH'] = path;
  try {
    await frame.feed(Buffer.alloc(10_000_000));
    await frame.finish();
  } finally {
    await frame.close();
  }
}

test('what the program says of a frame is the reason', async (t) => {
  const error = { name: 'Error', message: 'stdin: checksum' };
  await assert.rejects(feed(t, 'echo "stdin: checksum" >&2; exit 1'), error);
  await assert.rejects(feed(t, 'exit 7'), { name: 'Error', message: /exit code 7/ });
});

test('a program that is not there or is ended says nothing of the frame', async (t) => {
  await assert.rejects(feed(t), { name: 'PullError', code: 'internal' });
  await assert.rejects(feed(t, 'kill -9 $$'), { name: 'PullError', code: 'internal', message: /SIGKILL/ });
});
