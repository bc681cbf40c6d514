//! Which module makes the rows of which table, shared by the tables' tasks and by what exchanges modules.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::error::Error;
use crate::model::table_id::TableId;
use crate::pipeline::observe::report::Reporter;
use crate::transform::Module;

/// Which module serves which table.
#[derive(Debug)]
pub(in crate::pipeline) struct Serving {
    by_table: Mutex<HashMap<TableId, (Module, Value)>>,
    pub(in crate::pipeline) reporter: Arc<Reporter>,
}

impl Serving {
    pub(in crate::pipeline) fn new(reporter: Arc<Reporter>) -> Self {
        Serving { by_table: Mutex::default(), reporter }
    }

    /// `module` serves `table` from now on.
    pub(in crate::pipeline) fn set(&self, table: &TableId, module: Module, params: Value) {
        self.reporter.serve(table, module.sha256());
        self.by_table.lock().unwrap_or_else(PoisonError::into_inner).insert(table.clone(), (module, params));
    }

    /// The module that serves `table`, with its params.
    pub(in crate::pipeline) fn get(&self, table: &TableId) -> Option<(Module, Value)> {
        self.by_table.lock().unwrap_or_else(PoisonError::into_inner).get(table).cloned()
    }

    /// Nothing serves `table` any more.
    pub(in crate::pipeline) fn remove(&self, table: &TableId) {
        self.by_table.lock().unwrap_or_else(PoisonError::into_inner).remove(table);
        self.reporter.forget(table);
    }

    /// Something was not taken over for `table`.
    pub(in crate::pipeline) fn refuse(&self, table: &TableId, sha256: Option<String>, error: &Error) {
        self.reporter.refuse(table, sha256, error);
    }
}
