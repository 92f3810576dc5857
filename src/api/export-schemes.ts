export { pullAndExport } from '../client/pull-and-export.js';
export {
  checkDestination,
  EXPORT_SCHEMES,
  type ExportSchemeName,
} from '../export/export-schemes.js';
