/** The folders that have a row of their own in a table: the first cell is the folder alone. */
export function foldersIn(page: string): string[] {
  return [...page.matchAll(/^\| `([\w./-]+\/)` \|/gm)].map(([, folder]) => folder!);
}

/** Paths with a folder that stand anywhere in a page between backquotes: `src/pull/pull.ts`, `docs/errors.md`, `test/e2e/`. */
export function pathsIn(page: string): string[] {
  return [...page.matchAll(/`((?:src|workers|bench|test|docs|bin|\.ci)\/[\w./-]*)`/g)].map(
    ([, path]) => path!,
  );
}
