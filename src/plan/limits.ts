import { SPAN_BLOB_BYTES, SPAN_TAR_BYTES } from '../format/layer-table.js';

export interface PlanLimits {
  /** Requests that run at the same time; at least 1. */
  readonly connections: number;
  /** A distance between wanted bytes up to this is always fetched over. */
  readonly gapBytes: number;
  /** Larger distances together may add this share of the wanted bytes. */
  readonly extraShare: number;
  /** The same in layers without tar-split, whose gaps are wanted all over the layer. */
  readonly unsplitExtraShare: number;
  /** Of a layer of which this share is wanted, distances up to `requestBytes` are fetched over whatever they add. */
  readonly mostShare: number;
  readonly requestBytes: number;
  /** A run is not cut into spans smaller than this for the sake of an even finish. */
  readonly minSpanBytes: number;
  readonly spanBlobBytes: number;
  readonly spanTarBytes: number;
}

/** Tar padding and headers between two files are 150 to 350 bytes compressed: 1 KiB costs less than a request's headers. */
const GAP_BYTES = 1024;

/** A flat rule of 64 KiB makes an update of scattered small files fetch 1.4 to 4 times what it wants. */
const EXTRA_SHARE = 0.03;

/**
 * Without tar-split an update has to fetch every gap. Of 20,000 files of which a tenth changed, a share of 0.03 asks 10,675
 * times and 0.10 8,608 times, for 1.02 and 1.09 times the bytes that cannot be done without.
 */
const UNSPLIT_EXTRA_SHARE = 0.1;

/**
 * A request costs as much CPU time as fetching, decoding, hashing and writing 48 KiB of a blob (0.55 ms: 10,700 requests for
 * 73 MB took 7.6 s where 588 MB in 137 requests took 6.2 s).
 */
export const REQUEST_BYTES = 48 * 1024;

/**
 * Where two thirds are wanted, fetching over what is held adds at most half of that again, and saves up to thousands of
 * requests. Where less is wanted, the bytes may be worth more than the requests: nobody knows the network beforehand.
 */
const MOST_SHARE = 2 / 3;

/** One decode call's worth: below it a request's round trip costs more than an uneven finish. */
const MIN_SPAN_BYTES = 2 ** 20;

/** The limits a pull over so many connections (at least 1) plans with. */
export function planLimits(connections: number): PlanLimits {
  return {
    connections,
    gapBytes: GAP_BYTES,
    extraShare: EXTRA_SHARE,
    unsplitExtraShare: UNSPLIT_EXTRA_SHARE,
    mostShare: MOST_SHARE,
    requestBytes: REQUEST_BYTES,
    minSpanBytes: MIN_SPAN_BYTES,
    spanBlobBytes: SPAN_BLOB_BYTES,
    spanTarBytes: SPAN_TAR_BYTES,
  };
}
