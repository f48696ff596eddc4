//! The `ntier` command.

fn main() {}
