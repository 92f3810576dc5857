/**
 * Decoded bytes to a compressed one that a layer may have. It is what deflate cannot exceed (zlib, "Technical Details"): a layer of more
 * zeros than that could never have been pushed as gzip. zstd goes up to 32,768.
 */
export const MAX_DECODED_RATIO = 1032;

/**
 * Beyond that, all layers of a pull together: disk images and databases of some GiB that are mostly hole are pushed as they are, and 16 GiB of zeros take some
 * fifteen seconds to hash. The room that is left free on the disk holds all the same.
 */
export const FREE_DECODED_BYTES = 16 * 2 ** 30;
