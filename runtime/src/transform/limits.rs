//! What a module may use, and how much of a batch may fail. Settings with defaults; nothing here acts.

use std::time::Duration;

/// Bounds on modules. Every field is a setting of the pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// size of a module file, bytes
    pub module_bytes: usize,
    /// time to compile a module; past it the load fails, though the compile thread runs to its end
    pub compile_time: Duration,
    /// linear memory of one instance, bytes, all its memories together
    pub memory_bytes: usize,
    /// elements of one table
    pub table_elements: usize,
    /// stack of the guest, bytes; the calling thread needs this and 1 MiB more
    pub stack_bytes: usize,
    /// wall time of one call, instantiation included; enforced to within about 20 ms
    pub call_time: Duration,
    /// rows given to one call; a larger batch goes in several
    pub input_rows: usize,
    /// bytes of the columns given to one call; a larger batch goes in several, a larger row alone
    pub input_bytes: usize,
    /// rows that one call may return
    pub output_rows: usize,
    /// bytes that one call may return; the same again for the passed columns of rows that it multiplies
    pub output_bytes: usize,
    /// bytes that all calls for one batch may come to; past them the table stops
    pub batch_output_bytes: usize,
    /// columns that a module may read or write
    pub columns: usize,
    /// log lines of one call; more are counted and dropped
    pub log_lines: usize,
    /// bytes of a log line; the rest is cut off
    pub log_line_bytes: usize,
    /// bytes of an error or of the reason of a rejection; the rest is cut off
    pub error_bytes: usize,
    /// share of a batch's rows that may make the module fail before the table stops
    pub failed_ratio: f64,
    /// so many rows may fail in any batch, however small
    pub failed_rows: usize,
    /// time to spend on finding the rows that make the module fail; zero: the first failure ends the batch
    pub search_time: Duration,
}

const MIB: usize = 1 << 20;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            // CPython guests are 18 MiB
            module_bytes: 64 * MIB,
            // the slowest guest measured, JavaScript by SpiderMonkey, took 76 s on two busy cores
            compile_time: Duration::from_secs(120),
            memory_bytes: 256 * MIB,
            table_elements: 100_000,
            stack_bytes: MIB / 2,
            call_time: Duration::from_secs(5),
            // so many rows and their output stay in the caches of a core, and a large batch is enough of them for all cores
            input_rows: 16_384,
            // an eighth of the memory: a guest holds its input, its output, and what it makes in between
            input_bytes: 32 * MIB,
            output_rows: MIB,
            output_bytes: 128 * MIB,
            // half of what the offsets of a text column can count to
            batch_output_bytes: 1_024 * MIB,
            columns: 2_000,
            log_lines: 64,
            log_line_bytes: 1_024,
            error_bytes: 4_096,
            failed_ratio: 0.01,
            failed_rows: 10,
            search_time: Duration::from_secs(30),
        }
    }
}
