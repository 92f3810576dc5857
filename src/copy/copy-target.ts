import type { OwnFile } from '../files/own-file.js';
import type { Digest } from '../format/digest.js';
import type { BlobRange } from '../format/ranges.js';
import type { Stop } from '../pull/stop.js';
import type { CopySource } from './copy-source.js';

/** Where a blob goes. */
export interface BlobPlace {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly path: string;
  /** Where in the file it begins. */
  readonly start: number;
  /** It is there under its name already, for what its bytes are worth. */
  readonly held: boolean;
  /** What an earlier copy that was broken off has written, in order; none touches the next. */
  readonly written: readonly BlobRange[];
}

/** A place with its files. */
export interface MadePlace extends BlobPlace {
  readonly file: OwnFile;
  /** In which its ranges are noted as they come. */
  readonly journal: OwnFile;
}

/** How a target is opened. */
export interface TargetOptions {
  readonly tag: string | undefined;
  readonly stop: Stop;
  /** Called when another copy to this place has to end first. */
  readonly onWait: () => void;
}

/** Where a copy goes: a layout in a directory, or in an archive. Nothing has its final name before it is proven. */
export interface CopyTarget {
  /** Where the bytes go: there must be room for them. */
  readonly directory: string;
  /** The place of a blob, and what of it is there. @throws PullError as `storageError` */
  place(digest: Digest, sizeBytes: number): Promise<BlobPlace>;
  /** Makes the files of these places, or takes up what an earlier copy left. @throws PullError as `storageError` */
  make(places: readonly BlobPlace[]): MadePlace[];
  /** The bytes there are wrong, all of them may be. Returns the place again, with nothing in it. */
  forget(place: BlobPlace): Promise<BlobPlace>;
  /** The bytes there are right. */
  keep(place: MadePlace): Promise<void>;
  /** Everything is there: the image gets its name. */
  finish(source: CopySource): Promise<void>;
  /** Leaves it to other copies. Called when nobody writes there any more. @throws PullError as `storageError` */
  close(): void;
}
