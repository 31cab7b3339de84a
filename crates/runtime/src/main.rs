//! The program `ponton-runtime`.
fn main() {}
