//! Allocation counter of the unit tests, per thread: each test has a thread of its own.
//!
//! `unsafe`, because an allocator is; every call is passed on to the system's as it is.

#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static COUNTED: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread allocates, or grows a block, while `act` runs.
pub(crate) fn allocations(act: impl FnOnce()) -> u64 {
    let before = COUNTED.get();
    act();
    COUNTED.get() - before
}

// SAFETY: every call is passed on as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNTED.set(COUNTED.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        COUNTED.set(COUNTED.get() + 1);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNTED.set(COUNTED.get() + 1);
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
}

#[test]
fn counts_blocks_and_their_growth() {
    let mut grown = Vec::with_capacity(1);
    grown.push(1_u8);
    assert_eq!(allocations(|| grown.reserve_exact(100)), 1);
    assert_eq!(allocations(|| drop(Box::new(7_u64))), 1);
    assert_eq!(allocations(|| grown.push(2)), 0);
}
