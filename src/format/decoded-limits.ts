/**
 * Decoded bytes to a compressed one that a layer may have. It is what deflate cannot exceed (zlib, "Technical Details"): a layer of more
 * zeros than that could never have been pushed as gzip. zstd goes up to 32,768.
 */
export const MAX_DECODED_RATIO = 1032;

/**
 * What all layers of a pull may decode to beyond that ratio. Disk images and databases of some GiB that are mostly hole are pushed as
 * they are. Zeros of this length take about fifteen seconds to hash; the room that stays free on the disk is kept in any case.
 */
export const FREE_DECODED_BYTES = 16 * 2 ** 30;
