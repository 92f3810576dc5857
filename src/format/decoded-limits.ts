/**
 * Decoded bytes to a compressed one that a layer may have. It is what deflate cannot exceed (zlib, "Technical Details"): a layer of more
 * zeros than that could never have been pushed as gzip. zstd goes up to 32,768.
 */
export const MAX_DECODED_RATIO = 1032;

/** Beyond that, all layers of a pull together: a file of a GiB that is mostly hole is ordinary, and takes a few seconds to hash. */
export const FREE_DECODED_BYTES = 2 ** 30;
