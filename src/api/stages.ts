export type { StageName } from '../pool/stage-clock.js';
export { type StageFigures, StageRecorder, type Stages } from '../pool/stages.js';
