//! Which module makes the rows of which table, shared by the tables' tasks and by what exchanges modules.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::error::Error;
use crate::model::table_id::TableId;
use crate::pipeline::observe::report::Reporter;
use crate::transform::Module;

/// Which module serves which Silver table.
#[derive(Debug)]
pub(in crate::pipeline) struct Serving {
    by_table: Mutex<HashMap<String, (Module, Value)>>,
    pub(in crate::pipeline) reporter: Arc<Reporter>,
}

impl Serving {
    pub(in crate::pipeline) fn new(reporter: Arc<Reporter>) -> Self {
        Serving { by_table: Mutex::default(), reporter }
    }

    /// `module` serves `table` from now on.
    pub(in crate::pipeline) fn set(&self, table: &str, module: Module, params: Value) {
        self.reporter.serve(&TableId::silver(table), module.sha256());
        self.by_table.lock().unwrap_or_else(PoisonError::into_inner).insert(table.to_owned(), (module, params));
    }

    /// The module that serves `table`, with its params.
    pub(in crate::pipeline) fn get(&self, table: &str) -> Option<(Module, Value)> {
        self.by_table.lock().unwrap_or_else(PoisonError::into_inner).get(table).cloned()
    }

    /// Nothing serves `table` any more.
    pub(in crate::pipeline) fn remove(&self, table: &str) {
        self.by_table.lock().unwrap_or_else(PoisonError::into_inner).remove(table);
        self.reporter.forget(&TableId::silver(table));
    }

    /// Something was not taken over for `table`.
    pub(in crate::pipeline) fn refuse(&self, table: &str, sha256: Option<String>, error: &Error) {
        self.reporter.refuse(&TableId::silver(table), sha256, error);
    }
}
