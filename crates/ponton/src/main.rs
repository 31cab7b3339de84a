//! The program `ponton`.
fn main() {}
