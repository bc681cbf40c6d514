//! The one thing a module may ask of its host.

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// for the author of the module
    Debug,
    /// good to know
    Info,
    /// likely to need somebody's eye
    Warn,
    /// something is wrong
    Error,
}

/// Logs a line. The host keeps the first lines of a batch (64 by default) and counts the rest. In native tests it goes
/// to standard error.
pub fn log(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::glue::log(level, message);
    #[cfg(not(target_arch = "wasm32"))]
    eprintln!("{level:?}: {message}");
}
