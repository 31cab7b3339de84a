//! OCI and Docker image data types, references, digests and the runtime specification.
