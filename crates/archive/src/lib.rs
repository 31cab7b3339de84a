//! tar to tree and back.
