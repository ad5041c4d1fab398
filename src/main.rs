//! Countersign.
fn main(){}
