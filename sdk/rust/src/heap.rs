//! The heap of a module: blocks of up to [`LARGEST`] bytes from free lists by size, larger ones from the standard
//! allocator.
//!
//! A call lives for milliseconds and makes a small text or two a row, so what counts is the price of one small block
//! taken and given back. A freed block is kept for the next one of its size and never returned: the host drops the
//! whole memory after the call.
#![allow(unsafe_code, reason = "an allocator hands over pointers")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;

/// Blocks are multiples of this, and aligned to it.
const STEP: usize = 16;
/// Bytes of the largest block of the free lists.
const LARGEST: usize = 512;
/// Blocks are cut from pieces of so many bytes.
const PIECE: usize = 16 << 10;

/// Free lists over the standard allocator.
struct Heap {
    lists: UnsafeCell<Lists>,
}

struct Lists {
    /// the first free block of each size; the first word of a free block leads to the next
    free: [*mut u8; LARGEST / STEP],
    /// what is left of the piece that blocks are cut from
    rest: *mut u8,
    rest_bytes: usize,
}

// SAFETY: a module has one thread; the contract's hosts know no other.
unsafe impl Sync for Heap {}

#[cfg(target_arch = "wasm32")]
#[global_allocator]
static HEAP: Heap = Heap::new();

/// Which free list blocks of `layout` are on; `None` where they are the standard allocator's.
#[inline]
fn list_of(layout: Layout) -> Option<usize> {
    (layout.size() <= LARGEST && layout.align() <= STEP).then(|| layout.size().saturating_sub(1) / STEP)
}

impl Heap {
    const fn new() -> Heap {
        let free = [std::ptr::null_mut(); LARGEST / STEP];
        Heap { lists: UnsafeCell::new(Lists { free, rest: std::ptr::null_mut(), rest_bytes: 0 }) }
    }
}

impl Lists {
    /// Cuts a block of `bytes` from the rest of a piece; null where there is no memory.
    #[cold]
    unsafe fn cut(&mut self, bytes: usize) -> *mut u8 {
        if self.rest_bytes < bytes {
            // SAFETY: the size is not 0, the alignment a power of two.
            let piece = unsafe { System.alloc(Layout::from_size_align_unchecked(PIECE, STEP)) };
            if piece.is_null() {
                return piece;
            }
            (self.rest, self.rest_bytes) = (piece, PIECE);
        }
        let block = self.rest;
        // SAFETY: the rest has `bytes` and more.
        self.rest = unsafe { block.add(bytes) };
        self.rest_bytes -= bytes;
        block
    }
}

// SAFETY: blocks are disjoint, as large and as aligned as asked for, and on a list only while they are free. One thread,
// and nothing here calls back, so no reference to the lists meets another.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: see above; a block on a list is at least a word long, and its first word was written by `dealloc`.
        unsafe {
            let Some(list) = list_of(layout) else { return System.alloc(layout) };
            let lists = &mut *self.lists.get();
            let Some(first) = lists.free.get_mut(list) else { return std::ptr::null_mut() };
            let block = *first;
            if block.is_null() {
                return lists.cut((list + 1) * STEP);
            }
            *first = block.cast::<*mut u8>().read();
            block
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: see above; the caller gives back a block that `alloc` gave for this layout.
        unsafe {
            let Some(list) = list_of(layout) else { return System.dealloc(block, layout) };
            if let Some(first) = (*self.lists.get()).free.get_mut(list) {
                block.cast::<*mut u8>().write(*first);
                *first = block;
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the new size is sound for the alignment, and that the block is of `layout`.
        unsafe {
            let wanted = Layout::from_size_align_unchecked(size, layout.align());
            match (list_of(layout), list_of(wanted)) {
                (None, None) => System.realloc(block, layout, size),
                (had, wants) if had == wants => block,
                _ => {
                    let new = self.alloc(wanted);
                    if !new.is_null() {
                        std::ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    new
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of every size, taken, grown, shrunk and given back in a random order: each keeps what was written to it.
    #[test]
    fn blocks_are_disjoint_aligned_and_keep_their_contents() {
        let heap = Heap::new();
        let mut held: Vec<(*mut u8, Layout, u8)> = Vec::new();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let check = |block: *mut u8, bytes: usize, mark: u8| {
            // SAFETY: the block is held and was filled.
            assert!(unsafe { std::slice::from_raw_parts(block, bytes) }.iter().all(|byte| *byte == mark));
        };
        for round in 0..20_000 {
            let (size, mark) = (random(2 * LARGEST) + 1, round as u8);
            // SAFETY: layouts are those the blocks were taken with, sizes are not 0.
            unsafe {
                match random(3) {
                    0 if held.len() > 100 => {
                        let (block, layout, mark) = held.swap_remove(random(held.len()));
                        check(block, layout.size(), mark);
                        heap.dealloc(block, layout);
                    }
                    1 if !held.is_empty() => {
                        let (block, layout, old) = held.swap_remove(random(held.len()));
                        let new = heap.realloc(block, layout, size);
                        check(new, layout.size().min(size), old);
                        new.write_bytes(mark, size);
                        held.push((new, Layout::from_size_align(size, layout.align()).unwrap(), mark));
                    }
                    _ => {
                        let layout = Layout::from_size_align(size, 1 << random(7)).unwrap();
                        let block = heap.alloc(layout);
                        assert!(block.addr().is_multiple_of(layout.align()));
                        block.write_bytes(mark, size);
                        held.push((block, layout, mark));
                    }
                }
            }
        }
        held.iter().for_each(|(block, layout, mark)| check(*block, layout.size(), *mark));
    }
}
