import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The repository's root: compiled tests run from dist/test/…. */
export const ROOT = join(import.meta.dirname, '../../..');

/** Folders that hold TypeScript, as tsconfig.json includes them. */
const FOLDERS = ['src', 'workers', 'bench', 'test', 'scripts'];

/** Every TypeScript source as `folder/…/name.ts` or `.cts`, sorted. */
export function sourceFiles(): string[] {
  return FOLDERS.filter((folder) => existsSync(join(ROOT, folder)))
    .flatMap((folder) =>
      readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' }).map(
        (name) => `${folder}/${name.replaceAll('\\', '/')}`,
      ),
    )
    .filter((path) => /\.c?ts$/.test(path))
    .sort();
}

/** The text of a file of the repository. */
export function readSource(path: string): string {
  return readFileSync(join(ROOT, path), 'utf8');
}

/** Whether the repository has this file or folder. */
export function exists(path: string): boolean {
  return existsSync(join(ROOT, path));
}

/** The pages that describe the present state of the project; CHANGELOG.md and BENCHMARKS.md also describe the past. */
export function pagesOfProject(): string[] {
  const root = ['README.md', 'ARCHITECTURE.md', 'CONTRIBUTING.md', 'SECURITY.md'];
  const docs = readdirSync(join(ROOT, 'docs')).filter((name) => name.endsWith('.md'));
  return [...root, ...docs.map((name) => `docs/${name}`)];
}
