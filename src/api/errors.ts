export { ERROR_CODES, type ErrorCode, type Failure, PullError, toFailure } from '../format/error.js';
