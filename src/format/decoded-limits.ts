/**
 * Decoded bytes to a compressed one that a layer may have. It is what deflate cannot exceed (zlib, "Technical Details"): a layer of more
 * zeros than that could never have been pushed as gzip. zstd goes up to 32,768.
 */
export const MAX_DECODED_RATIO = 1032;

/**
 * What all layers of a pull may decode to beyond that ratio. Databases and disk images that are mostly hole are pushed as they are, and
 * have up to about 10 GiB; a bomb of 64 GiB ends after this much. Zeros of this length take about ten seconds to hash; the room that
 * stays free on the disk is kept in any case.
 */
export const FREE_DECODED_BYTES = 10 * 2 ** 30;
