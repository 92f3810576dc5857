import type { Target } from './target.js';
import { ANSWER_TARGETS } from './targets/answers.js';
import { DOCUMENT_TARGETS } from './targets/documents.js';
import { FILE_TARGETS } from './targets/files.js';
import { LAYER_TARGETS } from './targets/layers.js';
import { NAME_TARGETS } from './targets/names.js';
import { TAR_TARGETS } from './targets/tars.js';

/** Every parser that reads what somebody else wrote. */
export const TARGETS: readonly Target[] = [
  ...NAME_TARGETS,
  ...DOCUMENT_TARGETS,
  ...LAYER_TARGETS,
  ...TAR_TARGETS,
  ...ANSWER_TARGETS,
  ...FILE_TARGETS,
];
