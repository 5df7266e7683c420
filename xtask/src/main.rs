//! The chores of Recache.
fn main() {}
