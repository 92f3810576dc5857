import { exportLayers, PullError } from '../../index.js';
import { parseDestination } from '../destination.js';
import type { OptionValues } from '../options.js';
import { jsonLine } from '../printable.js';
import { createRenderer } from '../progress/renderer.js';
import { pullOptionsOf } from '../pull-options.js';
import { untilSignal } from '../signals.js';

/** `zpull export IMAGE DEST`: prints the destination. An image in the store is not looked up again unless told. */
export async function runExport(words: readonly string[], options: OptionValues): Promise<number> {
  const [image = '', text = ''] = words;
  const { scheme, path } = parseDestination(text);
  if (scheme !== 'layers') {
    throw new PullError('unsupported', `this version cannot export to ${scheme}:`, {
      hint: `write each layer's tar instead: zpull export ${image} layers:DIR`,
    });
  }
  const { destination } = await untilSignal(async (signal) => {
    const renderer = await createRenderer(options);
    try {
      return await exportLayers(image, path, {
        policy: 'missing',
        ...pullOptionsOf(options, process.env),
        signal,
        onEvent: renderer.onEvent,
      });
    } finally {
      renderer.end();
    }
  });
  process.stdout.write(options.json === true ? jsonLine({ image, destination }) : `${destination}\n`);
  return 0;
}
