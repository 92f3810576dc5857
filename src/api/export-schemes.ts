export {
  checkDestination,
  EXPORT_SCHEMES,
  type ExportSchemeName,
  type PreparedExport,
} from '../export/export-schemes.js';
