import { type Prng, randomWord } from './prng.js';

/** Where the files of each layer live; a further layer gets a root of its own. */
const ROOTS = ['usr/', 'opt/runtime/', 'app/node_modules/', 'app/src/'];

/** Files to a directory on average, as in a /usr of 20,000 files. */
const FILES_PER_DIRECTORY = 12;

/** Deeper than that is rare, and paths stay below the 255 bytes of ustar. */
const MAX_DEPTH = 9;

const TEXT_ENDINGS = ['.js', '.py', '.h', '.txt', '.json', '.md', '.html', ''];
const NOISE_ENDINGS = ['.so', '.bin', '.gz', '.png', '.pyc', ''];

/** The directories of one layer, each after its parent, with a slash at the end. */
export function directoryNames(layer: number, fileCount: number, prng: Prng): string[] {
  const root = ROOTS[layer] ?? `srv/layer${layer}/`;
  const steps = root.split('/').slice(0, -1);
  const names = new Set(steps.map((_, depth) => `${steps.slice(0, depth + 1).join('/')}/`));
  // Files and new directories go to any directory from the root on, not to what leads there.
  const open = [root];
  for (let left = Math.floor(fileCount / FILES_PER_DIRECTORY); left > 0; left -= 1) {
    const parent = open[prng.below(open.length)]!;
    const plain = `${parent}${randomWord(prng)}-${randomWord(prng)}/`;
    const name = names.has(plain) ? `${parent}${left.toString(36)}/` : plain;
    names.add(name);
    if (name.split('/').length <= MAX_DEPTH) open.push(name);
  }
  return [...names].sort();
}

/** A file's name: its number makes it the only one. */
export function fileName(kind: 'text' | 'noise', index: number, prng: Prng): string {
  const endings = kind === 'text' ? TEXT_ENDINGS : NOISE_ENDINGS;
  return `${randomWord(prng)}-${index.toString(36)}${endings[prng.below(endings.length)]!}`;
}
