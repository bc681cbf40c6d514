//! What an error from below means: of the store, of deltalake and its kernel, of Arrow and Parquet, of DataFusion.
//!
//! Receives an error and what was being done. Gives an [`Error`] whose kind says whether waiting helps, whether somebody
//! must give access, or whether a file of the lake is not what it must be. The one place that looks at those errors'
//! variants. Never decides what to do about it: [`ErrorKind::action`] does.

use std::borrow::Cow;
use std::error::Error as Cause;
use std::io;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use deltalake::DeltaTableError;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::errors::ParquetError;

use super::Location;
use crate::error::{Error, ErrorKind};

/// What to do where a file of a table is lost or broken, and the table's log is sound.
const FILE_LOST: &str = "`lode rebuild` makes a Silver table anew from Bronze; a file of Bronze has to come back from a \
                         copy of the lake";

/// An error from below with its kind; `what` was being done.
pub(super) fn store_error(what: &str, cause: impl Cause + Send + Sync + 'static) -> Error {
    lake_error(format!("{what} failed"), cause)
}

/// An error from below with its kind under the message `message`.
pub(crate) fn lake_error(message: impl Into<Cow<'static, str>>, cause: impl Cause + Send + Sync + 'static) -> Error {
    let kind = kind_of(&cause);
    let error = Error::new(kind, message).caused_by(cause);
    match kind {
        ErrorKind::Corrupt => error.hint(FILE_LOST),
        ErrorKind::Denied => error.hint("give the credentials of `lake.options` the right to read and to write there"),
        _ => error,
    }
}

/// A file of the lake that is not what it must be, found by ourselves.
pub(super) fn broken(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Corrupt, message).hint(FILE_LOST)
}

/// The way out for a table whose log cannot be read; `newest`: what is broken is the newest version's own file.
pub(super) fn way_out(location: &Location, newest: Option<&str>) -> String {
    let parts: Vec<&str> = location.url().path_segments().into_iter().flatten().filter(|p| !p.is_empty()).collect();
    let name = parts.last().copied().unwrap_or_default();
    let first = newest.map(|file| {
        format!(
            "move `{file}` out of the lake, as a power cut leaves such a file behind: the table goes on from the \
             version before it and takes in again what is missing; or "
        )
    });
    let rest = match parts.iter().rev().nth(1) {
        Some(&"silver") => {
            format!("move the folder `silver/{name}` out of the lake: `lode run` makes the table anew from Bronze")
        }
        _ => "put the file back from a copy of the lake".to_owned(),
    };
    first.unwrap_or_default() + &rest
}

/// True when the file at `path` is there and shorter than `bytes`.
pub(super) async fn is_cut(store: &dyn ObjectStore, path: &Path, bytes: u64) -> bool {
    store.head(path).await.is_ok_and(|found| found.size < bytes)
}

/// What kind of failure `error` is: by its own variant, or by the first cause that tells.
fn kind_of(error: &(dyn Cause + 'static)) -> ErrorKind {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(kind) = told(cause) {
            return kind;
        }
        next = cause.source();
    }
    ErrorKind::Internal
}

/// What this error tells by itself; `None` where its cause must be asked, or nothing is known.
fn told(error: &(dyn Cause + 'static)) -> Option<ErrorKind> {
    if let Some(error) = error.downcast_ref::<object_store::Error>() {
        return Some(of_store(error));
    }
    if let Some(error) = error.downcast_ref::<kernel::Error>() {
        return of_kernel(error);
    }
    if let Some(error) = error.downcast_ref::<DeltaTableError>() {
        return of_delta(error);
    }
    if let Some(error) = error.downcast_ref::<deltalake::kernel::Error>() {
        return of_model(error);
    }
    if let Some(error) = error.downcast_ref::<ParquetError>() {
        return of_parquet(error);
    }
    if let Some(error) = error.downcast_ref::<ArrowError>() {
        return of_arrow(error);
    }
    if let Some(error) = error.downcast_ref::<DataFusionError>() {
        return of_datafusion(error);
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return Some(of_io(error));
    }
    error.is::<serde_json::Error>().then_some(ErrorKind::Corrupt)
}

fn of_store(error: &object_store::Error) -> ErrorKind {
    use object_store::Error as Store;
    match error {
        Store::NotFound { .. } => ErrorKind::Corrupt,
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => ErrorKind::Denied,
        Store::AlreadyExists { .. } | Store::Precondition { .. } | Store::NotModified { .. } => ErrorKind::Unavailable,
        // what HTTP and the disk say; only the disk's errors can be asked further
        Store::Generic { source, .. } => {
            let mut next: Option<&(dyn Cause + 'static)> = Some(source.as_ref());
            while let Some(cause) = next {
                if let Some(disk) = cause.downcast_ref::<io::Error>() {
                    return of_io(disk);
                }
                next = cause.source();
            }
            ErrorKind::Unavailable
        }
        _ => ErrorKind::Internal,
    }
}

fn of_io(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    }
}

fn of_kernel(error: &kernel::Error) -> Option<ErrorKind> {
    use kernel::Error as Kernel;
    match error {
        Kernel::Backtraced { source, .. } => of_kernel(source),
        Kernel::ObjectStore(error) => Some(of_store(error)),
        Kernel::IOError(error) => Some(of_io(error)),
        Kernel::Parquet(error) => of_parquet(error),
        Kernel::Arrow(error) => of_arrow(error),
        Kernel::GenericError { source } => Some(kind_of(source.as_ref())),
        Kernel::Reqwest(_) => Some(ErrorKind::Unavailable),
        Kernel::Unsupported(_) => Some(ErrorKind::Config),
        Kernel::JoinFailure(_)
        | Kernel::InternalError(_)
        | Kernel::Cancelled
        | Kernel::CheckpointWrite(_)
        | Kernel::ChecksumWriteUnsupported(_)
        | Kernel::EngineDataType(_)
        | Kernel::InvalidTransactionState(_)
        | Kernel::InvalidUrl(_)
        | Kernel::ObjectStorePath(_)
        | Kernel::InvalidTableLocation(_)
        | Kernel::FileAlreadyExists(_)
        | Kernel::InvalidExpressionEvaluation(_)
        | Kernel::LiteralExpressionTransformError(_) => Some(ErrorKind::Internal),
        // everything else says that the log is not as the protocol wants it, `Generic` among them: gaps between versions
        _ => Some(ErrorKind::Corrupt),
    }
}

fn of_delta(error: &DeltaTableError) -> Option<ErrorKind> {
    use DeltaTableError as Delta;
    match error {
        Delta::KernelError(error) => of_kernel(error),
        Delta::Kernel { source } => of_model(source),
        Delta::ObjectStore { source } => Some(of_store(source)),
        Delta::Parquet { source } => of_parquet(source),
        Delta::Arrow { source } => of_arrow(source),
        Delta::Io { source } => Some(of_io(source)),
        Delta::GenericError { source } => Some(kind_of(source.as_ref())),
        Delta::InvalidJsonLog { .. }
        | Delta::InvalidStatsJson { .. }
        | Delta::InvalidVersion(_)
        | Delta::InvalidData { .. }
        | Delta::NotATable(_)
        | Delta::NoSchema
        | Delta::SchemaMismatch { .. }
        | Delta::PartitionError { .. }
        | Delta::MetadataError(_) => Some(ErrorKind::Corrupt),
        Delta::UnsupportedColumnMapping { .. } => Some(ErrorKind::Config),
        _ => Some(ErrorKind::Internal),
    }
}

fn of_model(error: &deltalake::kernel::Error) -> Option<ErrorKind> {
    use deltalake::kernel::Error as Model;
    match error {
        Model::Arrow(error) => of_arrow(error),
        Model::Parquet(error) => of_parquet(error),
        Model::ObjectStore(error) => Some(of_store(error)),
        Model::GenericError { source } => Some(kind_of(source.as_ref())),
        Model::InvalidUrl(_) => Some(ErrorKind::Internal),
        _ => Some(ErrorKind::Corrupt),
    }
}

fn of_parquet(error: &ParquetError) -> Option<ErrorKind> {
    match error {
        // what comes from outside may go away by waiting
        ParquetError::External(cause) => Some(match kind_of(cause.as_ref()) {
            ErrorKind::Internal => ErrorKind::Unavailable,
            kind => kind,
        }),
        ParquetError::NYI(_) => Some(ErrorKind::Config),
        _ => Some(ErrorKind::Corrupt),
    }
}

fn of_arrow(error: &ArrowError) -> Option<ErrorKind> {
    match error {
        ArrowError::ExternalError(cause) => Some(kind_of(cause.as_ref())),
        ArrowError::IoError(_, error) => Some(of_io(error)),
        ArrowError::MemoryError(_) | ArrowError::NotYetImplemented(_) | ArrowError::CDataInterface(_) => {
            Some(ErrorKind::Internal)
        }
        _ => Some(ErrorKind::Corrupt),
    }
}

/// Of DataFusion only what it read tells: the rest is about the query.
fn of_datafusion(error: &DataFusionError) -> Option<ErrorKind> {
    match error.find_root() {
        DataFusionError::ObjectStore(error) => Some(of_store(error)),
        DataFusionError::IoError(error) => Some(of_io(error)),
        DataFusionError::ParquetError(error) => of_parquet(error),
        DataFusionError::External(cause) => Some(kind_of(cause.as_ref())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Cause + Send + Sync + 'static) -> object_store::Error {
        object_store::Error::Generic { store: "test", source: Box::new(source) }
    }

    fn not_found() -> object_store::Error {
        object_store::Error::NotFound { path: "x".into(), source: "gone".into() }
    }

    fn denied() -> object_store::Error {
        object_store::Error::PermissionDenied { path: "x".into(), source: "403".into() }
    }

    #[test]
    fn the_store_s_answers_are_told_apart() {
        let kind = |error: object_store::Error| kind_of(&error);
        assert_eq!(kind(denied()), ErrorKind::Denied);
        let unauthenticated = object_store::Error::Unauthenticated { path: "x".into(), source: "401".into() };
        assert_eq!(kind(unauthenticated), ErrorKind::Denied);
        assert_eq!(kind(not_found()), ErrorKind::Corrupt);
        assert_eq!(kind(generic(io::Error::from(io::ErrorKind::TimedOut))), ErrorKind::Unavailable);
        assert_eq!(kind(generic(io::Error::from(io::ErrorKind::PermissionDenied))), ErrorKind::Denied);
        assert_eq!(kind(generic(io::Error::from(io::ErrorKind::StorageFull))), ErrorKind::Unavailable);
        let server = object_store::Error::Generic { store: "S3", source: "503 slow down".into() };
        assert_eq!(kind(server), ErrorKind::Unavailable);
        assert_eq!(
            kind(object_store::Error::NotImplemented { operation: "x".into(), implementer: "y".into() }),
            ErrorKind::Internal
        );
    }

    #[test]
    fn an_answer_of_the_store_is_found_under_whatever_wraps_it() {
        let external = |e| ParquetError::External(Box::new(e));
        assert_eq!(kind_of(&external(denied())), ErrorKind::Denied);
        assert_eq!(kind_of(&external(generic(io::Error::other("reset")))), ErrorKind::Unavailable);
        assert_eq!(kind_of(&kernel::Error::Parquet(external(not_found()))), ErrorKind::Corrupt);
        let wrapped = DeltaTableError::KernelError(kernel::Error::from(denied()));
        assert_eq!(kind_of(&wrapped), ErrorKind::Denied);
        let wrapped = DeltaTableError::KernelError(kernel::Error::generic_err(wrapped));
        assert_eq!(kind_of(&wrapped), ErrorKind::Denied);
        let wrapped = DataFusionError::External(Box::new(wrapped)).context("scan");
        assert_eq!(kind_of(&wrapped), ErrorKind::Denied);
        assert_eq!(
            kind_of(&ArrowError::ExternalError(Box::new(generic(io::Error::other("reset"))))),
            ErrorKind::Unavailable
        );
    }

    #[test]
    fn what_a_log_or_a_file_says_wrongly_is_corrupt_and_a_defect_is_internal() {
        let cut = serde_json::from_str::<serde_json::Value>("{\"add\":").unwrap_err();
        let corrupt: [Box<dyn Cause + Send + Sync>; 6] = [
            Box::new(DeltaTableError::KernelError(ArrowError::JsonError("cut".into()).into())),
            Box::new(DeltaTableError::KernelError(kernel::Error::MalformedJson(cut))),
            Box::new(DeltaTableError::KernelError(kernel::Error::invalid_checkpoint("no footer"))),
            Box::new(DeltaTableError::KernelError(kernel::Error::file_not_found("1.json"))),
            Box::new(DeltaTableError::InvalidVersion(7)),
            Box::new(ParquetError::EOF("cut".into())),
        ];
        for error in corrupt {
            assert_eq!(kind_of(error.as_ref()), ErrorKind::Corrupt, "{error}");
        }
        for error in [DeltaTableError::Generic("task 7 panicked".into()), DeltaTableError::NotInitialized] {
            assert_eq!(kind_of(&error), ErrorKind::Internal, "{error}");
        }
        assert_eq!(kind_of(&kernel::Error::unsupported("a feature")), ErrorKind::Config);
    }

    #[test]
    fn a_broken_file_comes_with_a_next_step() {
        let error = store_error("reading a deletion vector", not_found());
        assert!(error.next_step().unwrap().contains("`lode rebuild`"), "{error}");
        assert!(store_error("reading", generic(io::Error::other("reset"))).next_step().is_none());
    }
}
