/** Metadata of chunked layers that lies about a blob that is good. */
import { addBlob, type Metadata, nameImage, withMetadata } from '../layout.js';
import { type ImageRow, type LayerRow, sampleLayer, tarFor } from './row.js';

const PREFIX = 'io.github.containers.zstd-chunked.';
const TOC_DIGEST = 'containerd.io/snapshot/stargz/toc.digest';
const DIGEST = `sha256:${'ab'.repeat(32)}`;

type Entry = Metadata['toc']['entries'][number];

/** Lies in TOC or tar-split, with every digest of them right. */
function metadata(name: string, lie: (metadata: Metadata) => void, warns = true): LayerRow {
  return {
    name,
    warns,
    write: async (layout, tar) => {
      const { layer, diffId } = await sampleLayer(layout, tar, 'zstd:chunked');
      return { layer: await withMetadata(layout, layer, lie), diffId };
    },
  };
}

/** Lies in the entries of regular files with content. */
function entries(
  name: string,
  lie: (files: Entry[], toc: Metadata['toc']) => void,
  warns?: boolean,
): LayerRow {
  return metadata(
    name,
    ({ toc }) =>
      lie(
        toc.entries.filter(({ size = 0 }) => size > 0),
        toc,
      ),
    warns,
  );
}

/** Lies in the annotations. */
function annotated(name: string, lie: (annotations: Record<string, string>) => void): LayerRow {
  return {
    name,
    warns: true,
    write: async (layout, tar) => {
      const { layer, diffId } = await sampleLayer(layout, tar, 'zstd:chunked');
      lie(layer.annotations!);
      return { layer, diffId };
    },
  };
}

/** Lies about one number, by its place, of an annotation. */
function position(name: string, which: string, place: number, value: number): LayerRow {
  return annotated(name, (annotations) => {
    const numbers = annotations[PREFIX + which]!.split(':');
    numbers[place] = String(value);
    annotations[PREFIX + which] = numbers.join(':');
  });
}

/** An eStargz layer, changed behind what its tar is made of. */
function estargz(
  name: string,
  lie: (blob: Buffer, annotations: Record<string, string>) => Buffer,
  warns = true,
): LayerRow {
  return {
    name,
    warns,
    write: async (layout, tar) => {
      const { layer, diffId, blob } = await sampleLayer(layout, tar, 'estargz');
      const changed = lie(blob, layer.annotations!);
      return { layer: { ...layer, digest: addBlob(layout, changed), size: changed.length }, diffId };
    },
  };
}

/** The footer of an eStargz blob leads to this offset. */
function leadingTo(blob: Buffer, offset: number): Buffer {
  const changed = Buffer.from(blob);
  changed.write(offset.toString(16).padStart(16, '0'), blob.length - 51 + 16, 'latin1');
  return changed;
}

export const LYING_METADATA: readonly LayerRow[] = [
  entries('a content beyond the blob', ([file]) => {
    file!.offset = 2 ** 40;
    file!.endOffset = 2 ** 40 + 5;
  }),
  entries('a content that begins at 2^53', ([file]) => {
    file!.offset = 2 ** 53;
  }),
  entries('a content of negative size', ([file]) => {
    file!.size = -5;
  }),
  entries('a content of 2^50 bytes', ([file]) => {
    file!.size = 2 ** 50;
  }),
  entries('contents that overlap', ([one, two]) => {
    two!.offset = one!.offset! + 1;
  }),
  entries('contents in the wrong order', (files) => {
    const [one, two] = files;
    [one!.offset, two!.offset] = [two!.offset!, one!.offset!];
    [one!.endOffset, two!.endOffset] = [two!.endOffset!, one!.endOffset!];
  }),
  entries('a content that ends before it begins', ([file]) => {
    file!.endOffset = file!.offset! - 1;
  }),
  entries('a content with the digest of another', ([one, two]) => {
    one!.digest = two!.digest!;
  }),
  entries('contents with digests of nothing', (files) => {
    for (const file of files) file.digest = DIGEST;
  }),
  entries('a content whose digest is none', ([file]) => {
    file!.digest = 'sha256:../../etc/passwd';
  }),
  // What follows is not used where all of the blob is wanted, and so not found out.
  entries(
    'a content whose frame begins inside another',
    ([file]) => {
      file!.offset! += 3;
    },
    false,
  ),
  entries('a content with another name', ([file]) => {
    file!.name = '../../../etc/passwd';
  }),
  entries('a file too few', (files, toc) => {
    toc.entries.splice(toc.entries.indexOf(files[0]!), 1);
  }),
  entries('100,000 files too many', (files, toc) => {
    toc.entries.push(...Array<Entry>(100_000).fill(files[0]!));
  }),
  entries('a TOC of another version', (_, toc) => {
    Object.assign(toc, { version: 2 });
  }),
  entries('a TOC whose entries are a number', (_, toc) => {
    Object.assign(toc, { entries: 5 });
  }),
  entries('a chunk without a file', (_, toc) => {
    toc.entries.unshift({ type: 'chunk', name: 'x', offset: 0 });
  }),
  metadata('a tar-split that is no JSON', (data) => {
    data.tarSplit = Buffer.from('no tar-split');
  }),
  metadata('a tar-split that is empty', (data) => {
    data.tarSplit = Buffer.from('\n');
  }),
  metadata('a tar-split with sizes of its own', (data) => {
    data.tarSplit = Buffer.from(data.tarSplit.toString().replace('"size":30000', '"size":30001'));
  }),
  metadata('a tar-split of a tar of 2^45 bytes', (data) => {
    data.tarSplit = Buffer.from(data.tarSplit.toString().replace('"size":30000', '"size":35184372088832'));
  }),
  metadata(
    'a tar-split with a header that was changed',
    (data) => {
      data.tarSplit = Buffer.from(data.tarSplit.toString().replace(/"payload":"..../, '"payload":"QUJD'));
    },
    false,
  ),
  metadata(
    'a tar-split whose payload is no base64',
    (data) => {
      data.tarSplit = Buffer.from(data.tarSplit.toString().replace(/"payload":"..../, '"payload":"!!!!'));
    },
    false,
  ),
  metadata('a tar-split of 40 MB of spaces', (data) => {
    data.tarSplit = Buffer.concat([data.tarSplit, Buffer.alloc(40_000_000, ' ')]);
  }),
  position('a TOC at the end of the blob', 'manifest-position', 0, 2 ** 50),
  position('a TOC at the beginning of the blob', 'manifest-position', 0, 8),
  position('a TOC of no bytes', 'manifest-position', 1, 0),
  position('a TOC of 200 MiB', 'manifest-position', 1, 200 * 2 ** 20),
  position('a TOC that decodes to 1 TiB', 'manifest-position', 2, 2 ** 40),
  position('a TOC that decodes to 255 MiB, as it says', 'manifest-position', 2, 255 * 2 ** 20),
  position('a TOC that decodes to a byte, as it says', 'manifest-position', 2, 1),
  position('a TOC of type 2', 'manifest-position', 3, 2),
  position('a tar-split in the TOC', 'tarsplit-position', 0, 9),
  position('a tar-split that decodes to 511 MiB, as it says', 'tarsplit-position', 2, 511 * 2 ** 20),
  annotated('a TOC with another digest', (annotations) => {
    annotations[`${PREFIX}manifest-checksum`] = DIGEST;
  }),
  annotated('a TOC with a digest that is none', (annotations) => {
    annotations[`${PREFIX}manifest-checksum`] = '../../x';
  }),
  annotated('positions that are words', (annotations) => {
    annotations[`${PREFIX}manifest-position`] = 'one:two:three:four';
  }),
  annotated('positions without a digest', (annotations) => {
    delete annotations[`${PREFIX}manifest-checksum`];
  }),
  estargz(
    'a footer of eStargz that leads beyond the blob, and so is none',
    (blob) => leadingTo(blob, 2 ** 50),
    false,
  ),
  estargz('a footer of eStargz that leads to the first file', (blob) => leadingTo(blob, 0)),
  estargz(
    'a footer of eStargz that leads to itself, and so is none',
    (blob) => leadingTo(blob, blob.length - 51),
    false,
  ),
  estargz('a TOC of eStargz with another digest', (blob, annotations) => {
    annotations[TOC_DIGEST] = DIGEST;
    return blob;
  }),
];

export const METADATA_IMAGES: readonly ImageRow[] = [
  {
    name: 'metadata that lies beside a DiffID that lies',
    exit: 6,
    write: async (layout, ref) => {
      const { layer } = await sampleLayer(layout, tarFor(ref), 'zstd:chunked');
      const changed = await withMetadata(layout, layer, ({ toc }) => {
        for (const entry of toc.entries) if (entry.digest !== undefined) entry.digest = DIGEST;
      });
      nameImage(layout, ref, [changed], [DIGEST]);
      return [];
    },
  },
  {
    name: 'the annotations of an honest layer over a blob of zeros',
    exit: 6,
    write: async (layout, ref) => {
      const { layer, diffId } = await sampleLayer(layout, tarFor(ref), 'zstd:chunked');
      nameImage(layout, ref, [{ ...layer, digest: addBlob(layout, Buffer.alloc(layer.size)) }], [diffId]);
      return [];
    },
  },
];
