import assert from 'node:assert/strict';
import { test } from 'node:test';
import { writeRecord } from '../../../src/pull/resolve-image.js';
import { ExtentList } from '../../../src/store/extents.js';
import { listImageRecords, putBlob } from '../../../src/store/image-record.js';
import { writeLayerRecord } from '../../../src/store/layer-record.js';
import { removePack } from '../../../src/store/pack-files.js';
import { digestOf, freshStore, writePack } from '../store/support.js';

test('an image gets its record only if every layer is in the store at that moment', async (t) => {
  const paths = freshStore(t);
  const [manifestDigest, configDigest] = [digestOf('manifest'), digestOf('config')];
  await putBlob(paths, manifestDigest, Buffer.from('manifest'));
  await putBlob(paths, configDigest, Buffer.from('config'));
  const publish = async (text: string) => {
    const { id } = writePack(paths, [Buffer.from(text)]);
    const extents = new ExtentList();
    extents.push(id, 0, text.length);
    await writeLayerRecord(paths, { diffId: digestOf(text), extents });
    return id;
  };
  await publish('one');
  const pack = await publish('two');
  const image = {
    manifestDigest,
    manifest: {
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: { digest: configDigest },
      layers: ['one', 'two'].map((text) => ({ digest: digestOf(text), mediaType: 'tar', sizeBytes: 3 })),
    },
    config: { diffIds: ['one', 'two'].map(digestOf) },
  };
  const write = () => writeRecord(paths, 'x/y:z', { platformName: 'linux/amd64' } as never, image as never);
  await removePack(paths, pack);
  await assert.rejects(write(), { code: 'store-broken', message: new RegExp(`${digestOf('two')} is gone`) });
  assert.deepEqual(listImageRecords(paths), []);
  await publish('two');
  await write();
  assert.deepEqual(
    listImageRecords(paths).map(({ reference }) => reference),
    ['x/y:z'],
  );
});
