// SPDX-License-Identifier: AGPL-3.0-or-later
//! For tests: how often the allocator is asked, which tells a hot path's cost without depending on the machine, and how
//! much of it is in use.
//!
//! A test program sets it with `#[global_allocator] static ALLOCATOR: counting::Counting = counting::Counting;`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static IN_USE: Cell<i64> = const { Cell::new(0) };
}

/// What a block takes in glibc's heap: 8 bytes more, in steps of 16, and 32 at least.
const fn block(size: usize) -> i64 {
    let size = (size + 8).next_multiple_of(16);
    if size < 32 { 32 } else { size as i64 }
}

/// The system's allocator, counting what each thread asks for. A block that grows counts as a new one.
#[derive(Debug)]
pub struct Counting;

// SAFETY: every call goes to `System` unchanged; the counter has no destructor and does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        IN_USE.set(IN_USE.get() + block(layout.size()));
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.set(IN_USE.get() - block(layout.size()));
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// How often this thread asks the allocator while `work` runs.
pub fn allocations(work: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

/// How much more of the heap this thread has in use after `work` than before, in bytes, with what the allocator itself takes
/// for each block. Blocks that one thread gives to another make the number wrong.
pub fn bytes_kept(work: impl FnOnce()) -> i64 {
    let before = IN_USE.get();
    work();
    IN_USE.get() - before
}
