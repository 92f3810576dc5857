/** The folder that a heading such as "### `src/pull/`: …" stands for. */
const HEADING = /^###? `([\w./-]+)\/`/;

/**
 * The files named in the first column of the tables below a folder's heading, as paths from the repository's root.
 * Every name counts as often as it stands there.
 */
export function filesInTables(page: string): string[] {
  const files: string[] = [];
  let folder: string | undefined;
  for (const line of page.split('\n')) {
    if (line.startsWith('#')) folder = HEADING.exec(line)?.[1];
    const cell = /^\|([^|]*)\|/.exec(line)?.[1] ?? '';
    if (folder === undefined) continue;
    for (const [, name] of cell.matchAll(/`([^`]+)`/g)) files.push(`${folder}/${name}`);
  }
  return files;
}

/** Paths with a folder that stand anywhere in a page between backquotes: `src/pull/pull.ts`, `docs/errors.md`, `test/e2e/`. */
export function pathsIn(page: string): string[] {
  return [...page.matchAll(/`((?:src|workers|bench|test|docs|bin|\.ci)\/[\w./-]*)`/g)].map(
    ([, path]) => path!,
  );
}
