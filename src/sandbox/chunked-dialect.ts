/** What tells the releases of the reference writer (containers/storage, pkg/chunked) apart. */
export interface ChunkedDialect {
  /** Of the annotations. */
  readonly prefix: string;
  /** Where the digest of the compressed tar-split stands; undefined where no tar-split is written. */
  readonly tarSplitDigest: 'toc' | 'annotation' | undefined;
  /** What ends the footer. */
  readonly magic: string;
  /** Whether the TOC states the year 1 for a time of access or change that the tar does not have. */
  readonly zeroTimes: boolean;
}

/** The prefix up to 1.43, and that of stargz-snapshotter's converter. */
export const OLD_PREFIX = 'io.containers.zstd-chunked.';
/** The footer of 40 bytes ends with it; the one of 64 with another spelling. */
export const OLD_MAGIC = 'GnUlInUx';
const PREFIX = 'io.github.containers.zstd-chunked.';
const MAGIC = 'GNUlInUx';

/** 1.54 and later. */
export const CURRENT_DIALECT: ChunkedDialect = {
  prefix: PREFIX,
  tarSplitDigest: 'toc',
  magic: MAGIC,
  zeroTimes: false,
};

/** 1.50 to 1.53. */
export const ANNOTATED_DIALECT: ChunkedDialect = { ...CURRENT_DIALECT, tarSplitDigest: 'annotation' };

/** 1.31 to 1.43. */
export const OLD_DIALECT: ChunkedDialect = {
  prefix: OLD_PREFIX,
  tarSplitDigest: undefined,
  magic: OLD_MAGIC,
  zeroTimes: true,
};
