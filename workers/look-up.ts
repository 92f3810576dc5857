import type { LookUpResult, LookUpTask } from '../src/pool/messages.js';
