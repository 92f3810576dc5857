export {
  measureNetwork,
  type NetworkMeasurement,
  type NetworkOptions,
} from '../copy/measure-network.js';
export { usableCores } from '../pool/cores.js';
export {
  type MachineMeasurement,
  type MachineOptions,
  measureMachine,
  type PartMeasurement,
} from '../pull/measure-machine.js';
export { DEFAULT_CONNECTIONS, defaultWorkersOf } from '../pull/pull-options.js';
