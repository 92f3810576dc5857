import { SPAN_BLOB_BYTES, SPAN_TAR_BYTES } from '../format/layer-table.js';

export interface PlanLimits {
  /** Requests that run at the same time; at least 1. */
  readonly connections: number;
  /** A distance between wanted bytes up to this is always fetched over. */
  readonly gapBytes: number;
  /** Larger distances together may add this share of the wanted bytes. */
  readonly extraShare: number;
  /** A run is not cut into spans smaller than this for the sake of an even finish. */
  readonly minSpanBytes: number;
  readonly spanBlobBytes: number;
  readonly spanTarBytes: number;
}

/** Tar padding and headers between two files are 150 to 350 bytes compressed: 1 KiB costs less than a request's headers. */
const GAP_BYTES = 1024;

/** A flat rule of 64 KiB makes an update of scattered small files fetch 1.4 to 4 times what it wants. */
const EXTRA_SHARE = 0.03;

/** One decode call's worth: below it a request's round trip costs more than an uneven finish. */
const MIN_SPAN_BYTES = 2 ** 20;

/** The limits a pull over so many connections (at least 1) plans with. */
export function planLimits(connections: number): PlanLimits {
  return {
    connections,
    gapBytes: GAP_BYTES,
    extraShare: EXTRA_SHARE,
    minSpanBytes: MIN_SPAN_BYTES,
    spanBlobBytes: SPAN_BLOB_BYTES,
    spanTarBytes: SPAN_TAR_BYTES,
  };
}
