//! How the pipeline file wants one Silver table.

use arrow::datatypes::Schema;
use serde_json::Value;

use crate::config::OnIncompatible;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::KeyedTable;
use crate::model::schema::TableSchema;
use crate::model::schema::widen::widens;
use crate::pipeline::task::columns::stored_key;
use crate::transform::Module;

/// How the table is to be made.
#[derive(Debug, Clone)]
pub(in crate::pipeline) struct SilverSpec {
    pub(in crate::pipeline) name: String,
    pub(in crate::pipeline) module: Option<(Module, Value)>,
    pub(in crate::pipeline) partition_by: Vec<String>,
    /// true where it has a feed of changes
    pub(in crate::pipeline) changes: bool,
    /// what to do when the source changes a type or the key
    pub(in crate::pipeline) on_incompatible: OnIncompatible,
}

impl SilverSpec {
    /// Refuses columns that the table is not to follow: another key ever, a wider type only where the pipeline file says so.
    pub(in crate::pipeline) fn permit(&self, table: &KeyedTable, schema: &TableSchema, fields: &Schema) -> Result<()> {
        let key = stored_key(schema, fields);
        if key != table.key() {
            let (now, had) = (key.join(", "), table.key().join(", "));
            return Err(Error::new(
                ErrorKind::Misfit,
                format!("the source's key is now ({now}), the table's is ({had})"),
            )
            .hint("`lode rebuild` makes the table anew with another key"));
        }
        if self.on_incompatible == OnIncompatible::Evolve {
            return Ok(());
        }
        let changed = fields.fields().iter().find_map(|field| {
            let have = table.schema().field_with_name(field.name()).ok()?;
            let fits = widens(field.data_type(), have.data_type());
            (!fits).then_some((have, field))
        });
        let Some((have, field)) = changed else { return Ok(()) };
        let (name, from, to) = (field.name(), have.data_type(), field.data_type());
        Err(Error::new(ErrorKind::Misfit, format!("column `{name}` is {from} and was changed to {to} in the source"))
            .hint("`on_incompatible = \"evolve\"` lets the table follow where no value is lost"))
    }

    pub(in crate::pipeline) fn stopped(&self, error: &Error) -> Error {
        let message = format!("silver `{}`: {error}; `on_incompatible` is `stop`", self.name);
        Error::new(ErrorKind::Gap, message).hint(
            "set `on_incompatible` to `evolve` or `dead_letter` to go on from here, or remove the table: it is then made anew",
        )
    }
}
