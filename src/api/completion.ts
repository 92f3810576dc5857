export { listLayoutTags } from '../pull/oci-layout.js';
export { listImageNames } from '../store/image-record.js';
