//! What can go wrong, and the one decision what to do about it.

pub(crate) mod pauses;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// What kind of failure this is. [`ErrorKind::action`] alone decides what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// the pipeline file, a module or a command line is wrong
    Config,
    /// the lake or the broker did not answer, or answered "later"
    Unavailable,
    /// the lake or the broker refused our credentials
    Denied,
    /// another writer committed first; read the log again and decide
    Conflict,
    /// another instance owns what we tried to commit
    Fenced,
    /// a rebuild replaced the table: it goes on from where the rebuild ended
    Rebuilt,
    /// rows or columns that a table, or its module, cannot take; the table is as it was
    Misfit,
    /// a table, log or file does not hold what it must
    Corrupt,
    /// the source lost or rewrote what a table still needs
    Gap,
    /// a module broke its contract
    Module,
    /// a defect of ours
    Internal,
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// try again, with growing pauses; after a while, as `Reopen`
    Retry,
    /// end the table's task, and open the table anew after a pause, with credentials as they are by then
    Reopen,
    /// put the records or rows into the dead-letter table and go on; where there are none, as `Stop`
    DeadLetter,
    /// stop this table (never the others), and say how to mend it
    Stop,
}

impl ErrorKind {
    /// The one place that decides between trying again, setting a record aside and stopping.
    pub fn action(self) -> Action {
        match self {
            ErrorKind::Unavailable | ErrorKind::Conflict => Action::Retry,
            ErrorKind::Denied | ErrorKind::Rebuilt => Action::Reopen,
            ErrorKind::Misfit => Action::DeadLetter,
            ErrorKind::Config
            | ErrorKind::Fenced
            | ErrorKind::Corrupt
            | ErrorKind::Gap
            | ErrorKind::Module
            | ErrorKind::Internal => Action::Stop,
        }
    }
}

/// An error with its kind, a message that says what and where, and a next step.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// `message`: lowercase, values in backticks, no full stop.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Error { kind, message: message.into(), hint: None, source: None }
    }

    /// Adds the next step for whoever reads the message.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the error this one comes from.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// The same failure, met while doing something greater, which `message` says; kind and next step stay.
    #[must_use]
    pub fn within(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        let (kind, hint) = (self.kind, self.hint.take());
        Error { kind, message: message.into(), hint, source: Some(Arc::new(self)) }
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// True when what was asked for is refused, and everything goes on as it was.
    pub fn is_refusal(&self) -> bool {
        matches!(self.kind, ErrorKind::Config | ErrorKind::Misfit | ErrorKind::Module)
    }

    /// True when somebody has to write something else: into a file, a command line, or a module.
    pub fn is_by_user(&self) -> bool {
        matches!(self.kind, ErrorKind::Config | ErrorKind::Misfit)
    }

    /// What to do about it.
    pub fn action(&self) -> Action {
        self.kind.action()
    }

    /// The next step, where there is one.
    pub fn next_step(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// What a panic means, be it a task's or a thread's.
pub(crate) fn panicked(what: &str, panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Error::new(ErrorKind::Internal, format!("{what} panicked: {}", text.unwrap_or("no message")))
        .hint("this is a defect of lode; nothing that was committed is affected, the next start goes on from there")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut source = self.source.as_deref().map(|e| e as &dyn std::error::Error);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
