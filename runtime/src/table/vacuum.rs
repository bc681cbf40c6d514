//! Vacuum.

/// What a vacuum did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vacuumed {
    /// files deleted
    pub files: usize,
    /// their bytes
    pub bytes: u64,
}
