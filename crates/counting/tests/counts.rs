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

#[test]
fn what_is_kept_is_counted_with_what_a_block_takes() {
    let mut kept: Vec<Vec<u8>> = Vec::with_capacity(3);
    assert_eq!(counting::bytes_kept(|| kept.push(vec![0; 24])), 32);
    assert_eq!(counting::bytes_kept(|| kept.push(vec![0; 25])), 48);
    assert_eq!(counting::bytes_kept(|| kept.clear()), -80);
}
