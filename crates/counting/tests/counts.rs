// SPDX-License-Identifier: AGPL-3.0-or-later
//! The counter counts.
#![allow(missing_docs)]

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

#[test]
fn blocks_and_their_growth_are_counted_and_nothing_else() {
    assert_eq!(counting::allocations(|| {}), 0);
    assert_eq!(counting::allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
    let mut grows: Vec<u8> = Vec::with_capacity(1);
    assert_eq!(counting::allocations(|| grows.extend_from_slice(&[0; 100])), 1);
}
