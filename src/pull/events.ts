/** What a pull tells while it runs. Advice for a display; the result is what counts. Sizes in bytes. */
export type PullEvent =
  | { readonly event: 'resolving'; readonly image: string }
  /** The manifest is known: `totalBytes` is the sum of the layer blobs. */
  | {
      readonly event: 'resolved';
      readonly image: string;
      readonly digest: string;
      /** The digest of the index that it was chosen from, when there was one. */
      readonly indexDigest?: string;
      readonly platform: string;
      readonly layers: number;
      readonly totalBytes: number;
    }
  /** All totals are exact from here on, before the first content byte. `totalBytes`: blob bytes this pull receives. */
  | {
      readonly event: 'planned';
      readonly totalBytes: number;
      readonly fetchBytes: number;
      readonly reuseBytes: number;
      readonly resumeBytes: number;
      readonly requests: number;
    }
  /** About ten times a second. `receivedBytes` counts body bytes of blobs, of `totalBytes` known by then. */
  | {
      readonly event: 'progress';
      readonly receivedBytes: number;
      readonly totalBytes: number;
      readonly writtenBytes: number;
      readonly verifiedBytes: number;
    }
  /** A layer is proven and in the store; of a copy, which decodes nothing, by the digest of its blob. */
  | { readonly event: 'layer'; readonly diffId: string; readonly done: number; readonly of: number }
  /** A server told us to wait; told once for all requests that it told at the same time. */
  | { readonly event: 'waiting'; readonly host: string; readonly waitMs: number }
  /** Only layers that other processes are pulling are left; of a copy, that another one into the same layout comes first. */
  | { readonly event: 'waiting-for-layers'; readonly layers: number }
  | { readonly event: 'miss'; readonly message: string }
  | { readonly event: 'warning'; readonly message: string }
  /** A line for --debug. */
  | { readonly event: 'debug'; readonly line: string };
