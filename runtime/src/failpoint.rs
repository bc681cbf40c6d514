//! Named points where a test ends the process, with no time for a last word.
//!
//! Built with the feature `failpoints`, the variable `LODE_FAILPOINT=<name>[:n]` aborts at the n-th pass of that
//! point, after printing its name. Without the feature a point costs nothing.

/// Every point there is; a test hits each.
pub const NAMES: &[&str] = &[
    "flush.after_data_file",
    "flush.after_vector_file",
    "flush.after_commit",
    "compact.before_commit",
    "compact.after_commit",
    "index.while_loading",
    "dead_letters.after_write",
    "bronze.after_data_file",
    "bronze.after_commit",
    "changes.after_data_file",
    "changes.before_commit",
    "changes.after_commit",
];

/// Passes the point `name`.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn pass(_name: &str) {}

/// Passes the point `name`.
#[cfg(feature = "failpoints")]
pub fn pass(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static ARMED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSES: AtomicU64 = AtomicU64::new(0);
    debug_assert!(NAMES.contains(&name), "unknown failpoint `{name}`");
    let armed = ARMED.get_or_init(|| {
        let text = std::env::var("LODE_FAILPOINT").ok()?;
        let (name, nth) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), nth.parse().unwrap_or(1)))
    });
    if let Some((point, nth)) = armed
        && point == name
        && PASSES.fetch_add(1, Ordering::Relaxed) + 1 == *nth
    {
        eprintln!("failpoint {name}");
        std::process::abort();
    }
}
