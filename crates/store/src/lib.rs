//! Content-addressed blobs and the one SQLite database.
