export { type StageFigures, StageRecorder, type Stages } from '../pool/stages.js';
