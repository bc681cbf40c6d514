//! Where instances live: as many places as there are cores, for all tables and all pieces of their batches, and the
//! memory they take over from one another.
//!
//! Whoever wants one more waits, holding nothing; a call ends by its deadline, so every wait does. An instance never
//! sees what its predecessor left: wasmtime resets what it takes over to the module's own initial image.

use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use wasmtime::PoolingAllocationConfig;

use super::limits::Limits;

/// Core instances, tables and memories of one module: a CPython guest is six core modules and the adapters between them.
pub(super) const INSTANCES: u32 = 64;
pub(super) const TABLES: u32 = 64;
pub(super) const MEMORIES: u32 = 8;

/// Of each memory and table, so many bytes stay with the process between two calls; the rest goes back to the system.
const KEPT_MEMORY: usize = 2 << 20;
const KEPT_TABLE: usize = 64 << 10;
/// So many memories stay with the module that used them last.
const WARM: u32 = 32;

/// The slots of one engine. Cheap to clone.
#[derive(Clone)]
pub(super) struct Slots {
    shared: Arc<Shared>,
}

struct Shared {
    count: usize,
    free: Mutex<usize>,
    freed: Condvar,
}

/// A slot taken; free again when dropped.
pub(super) struct Slot {
    shared: Arc<Shared>,
}

impl Slots {
    /// One slot a core.
    pub(super) fn one_a_core() -> Slots {
        Slots::new(std::thread::available_parallelism().map_or(1, NonZeroUsize::get))
    }

    fn new(count: usize) -> Slots {
        Slots { shared: Arc::new(Shared { count, free: Mutex::new(count), freed: Condvar::new() }) }
    }

    /// Room for an instance of the largest shape in each slot. What it takes is address space, not memory: 4 GiB a
    /// linear memory, so that no access of a guest needs a check.
    pub(super) fn pool(&self, limits: &Limits) -> PoolingAllocationConfig {
        const ADDRESSES: usize = 4 << 30;
        // Sizes that only bound what wasmtime keeps about an instance.
        const BOOKKEEPING: usize = 64 << 20;
        let slots = u32::try_from(self.shared.count).unwrap_or(u32::MAX);
        let all = |each: u32| slots.saturating_mul(each);
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(slots)
            .total_core_instances(all(INSTANCES))
            .total_memories(all(MEMORIES))
            .total_tables(all(TABLES))
            .max_core_instances_per_component(INSTANCES)
            .max_memories_per_component(MEMORIES)
            .max_tables_per_component(TABLES)
            .max_memories_per_module(MEMORIES)
            .max_tables_per_module(TABLES)
            .max_component_instance_size(BOOKKEEPING)
            .max_core_instance_size(BOOKKEEPING)
            .max_memory_size(ADDRESSES)
            .table_elements(limits.table_elements)
            // Pages that the last call dirtied are zeroed and kept: to fault them in again would cost more than all else
            // that the host does for a call.
            .linear_memory_keep_resident(KEPT_MEMORY)
            .table_keep_resident(KEPT_TABLE)
            .max_unused_warm_slots(WARM);
        pool
    }

    /// How many are free now; at once out of date.
    pub(super) fn free(&self) -> usize {
        *self.shared.lock()
    }

    /// Takes a slot, waiting until there is one.
    pub(super) fn take(&self) -> Slot {
        let mut free = self.shared.lock();
        while *free == 0 {
            free = self.shared.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Slot { shared: self.shared.clone() }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.shared.lock() += 1;
        self.shared.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn no_more_are_taken_than_there_are_and_all_who_wait_get_one() {
        let slots = Slots::new(3);
        let (held, most, taken) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let slot = slots.take();
                        most.fetch_max(held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        taken.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                        held.fetch_sub(1, Ordering::SeqCst);
                        drop(slot);
                    }
                });
            }
        });
        assert_eq!((taken.into_inner(), slots.free()), (1_600, 3));
        assert!(most.into_inner() <= 3);
    }
}
