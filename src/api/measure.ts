export {
  measureNetwork,
  type NetworkMeasurement,
  type NetworkOptions,
} from '../copy/measure-network.js';
