import { createHash, randomUUID } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TreeOptions } from '../../src/sandbox/sample-tree.js';
import { type SampleResult, writeSampleImage } from './layers/sample-image.js';

/** To be raised when the sandbox writes other bytes for the same options. */
const FORMAT = 1;

/**
 * A generated image in a layout of its own, under the name `sample`. It is written once a machine and stays in the
 * directory for temporary files; tests must not change it.
 */
export async function keptSample(tree: TreeOptions): Promise<{ layout: string; sample: SampleResult }> {
  const key = createHash('sha256')
    .update(JSON.stringify({ FORMAT, ...tree }))
    .digest('hex')
    .slice(0, 16);
  const layout = join(tmpdir(), `zpull-test-sample-${key}`);
  const facts = join(layout, 'sample.json');
  if (!existsSync(facts)) {
    const unfinished = `${layout}.${randomUUID()}`;
    const sources = [{ kind: 'tree' as const, ...tree }];
    const sample = await writeSampleImage({ layoutDir: unfinished, ref: 'sample', sources });
    writeFileSync(join(unfinished, 'sample.json'), JSON.stringify(sample));
    try {
      renameSync(unfinished, layout);
    } catch {
      rmSync(unfinished, { recursive: true }); // another test run was first
    }
  }
  return { layout, sample: JSON.parse(readFileSync(facts, 'utf8')) as SampleResult };
}
