"""Pictures in tar files, as webdataset arranges them: read where they lie, never unpacked."""
