//! Containers as Docker means them.
