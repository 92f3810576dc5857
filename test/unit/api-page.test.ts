import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { API_PAGE, apiPage, declarationsOfApi, missingTypes } from '../../scripts/api-pages.js';

const ROOT = join(import.meta.dirname, '../../..');

test('docs/api is what the declarations say: npm run api writes it', () => {
  assert.equal(readFileSync(API_PAGE, 'utf8'), apiPage(declarationsOfApi()));
});

test('every type in a public signature is exported, and every export has a comment', () => {
  const declarations = declarationsOfApi();
  assert.ok(declarations.length > 30);
  assert.deepEqual(missingTypes(declarations), []);
  assert.deepEqual(
    declarations.filter(({ text }) => text === '').map(({ name }) => name),
    [],
  );
});

/** The anchors of a page, as GitHub makes them from its headings. */
function anchorsOf(text: string): Set<string> {
  const headings = [...text.replace(/^```[\s\S]*?^```/gm, '').matchAll(/^#+ (.+)$/gm)];
  return new Set(
    headings.map(([, heading = '']) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

test('links of the pages lead to files and headings that exist', () => {
  const pages = ['README.md', 'CONTRIBUTING.md', 'ARCHITECTURE.md', 'SECURITY.md', 'docs/api/README.md'];
  for (const name of readdirSync(join(ROOT, 'docs'))) if (name.endsWith('.md')) pages.push(`docs/${name}`);
  const dead: string[] = [];
  for (const page of pages) {
    const text = readFileSync(join(ROOT, page), 'utf8');
    const prose = text.replace(/^```[\s\S]*?^```/gm, '').replace(/`[^`\n]*`/g, '');
    for (const [, link = ''] of prose.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(link)) continue;
      const [path = '', anchor] = link.split('#');
      const target = path === '' ? join(ROOT, page) : join(ROOT, dirname(page), path);
      const isThere = existsSync(target);
      if (!isThere) dead.push(`${page}: ${link}`);
      else if (anchor !== undefined && target.endsWith('.md')) {
        if (!anchorsOf(readFileSync(target, 'utf8')).has(anchor)) dead.push(`${page}: ${link}`);
      }
    }
  }
  assert.deepEqual(dead, []);
});
