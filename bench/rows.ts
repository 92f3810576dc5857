/** How a figure is printed. */
export type Unit = 'ratio' | 'share' | 'seconds' | 'bytes' | 'count';

/** One line of the table: what is measured, and what it should be at least or at most. */
export interface RowDefinition {
  /** The row's number, with a letter where a row has several figures. */
  readonly id: string;
  readonly name: string;
  readonly unit: Unit;
  /** A row without either is for information. */
  readonly atMost?: number;
  readonly atLeast?: number;
}

const MB = 1e6;

export const ROWS: readonly RowDefinition[] = [
  { id: '1', name: 'cold pull: CPU / floor', unit: 'ratio', atMost: 1.25 },
  { id: '1a', name: '  floor: decode', unit: 'seconds' },
  { id: '1b', name: '  floor: hash', unit: 'seconds' },
  { id: '1c', name: '  floor: write and sync', unit: 'seconds' },
  { id: '1d', name: '  floor: receive', unit: 'seconds' },
  { id: '1e', name: '  floor: all of it', unit: 'seconds' },
  { id: '1f', name: '  CPU of the pull', unit: 'seconds' },
  { id: '1g', name: '  CPU of the server meanwhile', unit: 'seconds' },
  { id: '2', name: 'cold pull: wall / ideal wall', unit: 'ratio', atMost: 1.5 },
  { id: '2a', name: '  wall of the pull', unit: 'seconds' },
  { id: '3', name: 'wall on one core / on two', unit: 'ratio', atLeast: 1.8 },
  { id: '4', name: 'last byte until proven / pull', unit: 'share', atMost: 0.05 },
  { id: '5', name: 'main thread busy, cold pull', unit: 'share', atMost: 0.15 },
  { id: '6', name: 'update: bytes / least bytes', unit: 'ratio', atMost: 1.03 },
  { id: '7', name: 'cold pull: bytes / blob size', unit: 'ratio', atMost: 1.02 },
  { id: '8a', name: 'again, nothing new: blob bytes', unit: 'bytes', atMost: 0 },
  { id: '8b', name: 'again: wall / node -e 0', unit: 'ratio', atMost: 2.5 },
  { id: '9a', name: 'peak RSS, 2 workers, 16 connections', unit: 'bytes', atMost: 256 * MB },
  { id: '9b', name: '  80,000 files, 4 GiB: RSS / 9a', unit: 'ratio', atMost: 1.2 },
  { id: '9c', name: '  120,000 small files: RSS / 9a', unit: 'ratio', atMost: 1.2 },
  { id: '10a', name: 'zpull --version / node -e 0', unit: 'ratio', atMost: 1.3 },
  { id: '10b', name: 'zpull --help / node -e 0', unit: 'ratio', atMost: 2.5 },
  { id: '10c', name: 'a usage error / node -e 0', unit: 'ratio', atMost: 2.5 },
  { id: '11a', name: 'killed pulls that did not end verified', unit: 'count', atMost: 0 },
  { id: '11b', name: '  asked for again, worst / blob', unit: 'share', atMost: 0.06 },
  { id: '11c', name: '  the same at 2 MB/s, worst', unit: 'bytes', atMost: 4 * MB },
  { id: '12', name: 'wall at 50 ms, 20 MB/s a connection', unit: 'seconds' },
  { id: '13', name: 'one gzip layer: wall / zcat | sha256', unit: 'ratio', atMost: 1.15 },
  { id: '13a', name: '  CPU of the pull', unit: 'seconds' },
  { id: '14', name: 'one zstd layer: wall / zstd -dc | sha256', unit: 'ratio', atMost: 1.15 },
  { id: '14a', name: '  CPU of the pull', unit: 'seconds' },
  { id: '15', name: 'without tar-split: wall / with', unit: 'ratio', atMost: 1.15 },
  { id: '15a', name: '  eStargz: wall / zstd:chunked', unit: 'ratio' },
  { id: '16a', name: 'update without tar-split: bytes / least', unit: 'ratio', atMost: 1.15 },
  { id: '16b', name: 'update of eStargz: bytes / least', unit: 'ratio', atMost: 1.15 },
  { id: '17a', name: 'peak RSS: one gzip layer', unit: 'bytes', atMost: 300 * MB },
  { id: '17b', name: '  one zstd layer', unit: 'bytes', atMost: 300 * MB },
  { id: '17c', name: '  without tar-split', unit: 'bytes', atMost: 300 * MB },
  { id: '17d', name: '  eStargz', unit: 'bytes', atMost: 300 * MB },
  { id: '18', name: '--limit-rate: rate / limit', unit: 'ratio', atLeast: 0.95, atMost: 1.05 },
  { id: '20', name: 'planning: added by 1,000,000 contents', unit: 'seconds', atMost: 0.3 },
  { id: '20a', name: '  peak RSS added', unit: 'bytes', atMost: 100 * MB },
  { id: '21', name: 'disk of v1 and v2 / v1 alone', unit: 'ratio', atMost: 1.2 },
  { id: '21a', name: '  as gzip', unit: 'ratio', atMost: 1.2 },
  { id: '22', name: 'store verify / openssl, all layers', unit: 'ratio', atMost: 0.75 },
  { id: '23', name: 'export rootfs / tar -x of the same tars', unit: 'ratio', atMost: 0.7 },
  { id: '24', name: 'pull + rootfs / curl | zstd -dc | tar -x', unit: 'ratio', atMost: 1 },
  { id: '25', name: 'copy of 800 MB: wall / skopeo', unit: 'ratio', atMost: 0.8 },
  { id: '25a', name: '  wall / crane', unit: 'ratio', atMost: 1 },
  { id: '25b', name: '  peak RSS', unit: 'bytes', atMost: 128 * MB },
  { id: '26', name: 'copy at 50 ms, 20 MB/s: wall / skopeo', unit: 'ratio', atMost: 0.12 },
  { id: '27', name: 'copy of 4 GiB: wall / skopeo', unit: 'ratio', atMost: 0.8 },
  { id: '27a', name: '  wall / crane', unit: 'ratio', atMost: 1 },
  { id: '27b', name: '  peak RSS', unit: 'bytes', atMost: 128 * MB },
];

/** What `--real` measures, on files of this machine. "verified": a shell pipeline that writes the tar and hashes it. */
export const REAL_ROWS: readonly RowDefinition[] = [
  ...againstPeers('31', 'one layer', 0.55, 0.38),
  { id: '31d', name: '  CPU / decode, hash, write, receive alone', unit: 'ratio', atMost: 1.25 },
  ...againstPeers('32', 'four layers', 0.75, 0.55),
  ...againstPeers('33', '120,000 small files', 0.28, 0.18),
  ...againstPeers('34', 'one file of 2 GB of noise', 0.75, 0.6),
  ...againstPeers('35', 'four gzip layers', 0.85, 1),
  ...againstPeers('36', 'one gzip layer', 0.85, 1),
  ...againstPeers('37', 'one zstd layer, not chunked', 0.8, 1),
  { id: '38', name: 'pull to rootfs: wall / containers-storage', unit: 'ratio', atMost: 0.55 },
  { id: '38a', name: '  wall / curl | zstd -dc | tar -x', unit: 'ratio', atMost: 1 },
  { id: '39', name: 'update: bytes / least bytes', unit: 'ratio', atMost: 1.03 },
  { id: '39a', name: '  wall / containers-storage', unit: 'ratio', atMost: 0.3 },
  { id: '40', name: 'eStargz, cold: bytes fetched twice', unit: 'bytes', atMost: 0 },
  { id: '41', name: 'wall on one core / on two', unit: 'ratio', atLeast: 1.8 },
];

/** The rows of a cold pull of one sample. */
function againstPeers(id: string, what: string, verified: number, storage: number): RowDefinition[] {
  return [
    { id, name: `${what}: wall / verified pipeline`, unit: 'ratio', atMost: verified },
    { id: `${id}a`, name: '  wall / containers-storage', unit: 'ratio', atMost: storage },
    { id: `${id}b`, name: '  CPU of the pull', unit: 'seconds' },
    { id: `${id}c`, name: '  peak RSS', unit: 'bytes', atMost: 256 * MB },
  ];
}

/** The number that `--only` means: 11 for `11b`. */
export function rowNumber(id: string): number {
  return Number.parseInt(id, 10);
}

/** A figure as the table shows it; bytes in decimal units. */
export function formatFigure(value: number, unit: Unit): string {
  switch (unit) {
    case 'ratio':
      return value.toFixed(2);
    case 'share':
      return `${(value * 100).toFixed(1)} %`;
    case 'seconds':
      return `${value.toFixed(2)} s`;
    case 'bytes':
      return Math.abs(value) < 10_000 ? `${value} B` : `${(value / MB).toFixed(1)} MB`;
    default:
      return String(value);
  }
}

/** The goal of a row as the table shows it. */
export function limitsOf({ atLeast, atMost, unit }: RowDefinition): string {
  const least = atLeast === undefined ? [] : [`>= ${formatFigure(atLeast, unit)}`];
  const most = atMost === undefined ? [] : [`<= ${formatFigure(atMost, unit)}`];
  return [...least, ...most].join(' ');
}
