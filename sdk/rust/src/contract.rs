//! The types of `lodestream:transform@0.1.0` in Rust. Row functions never see them; modules that work on whole columns
//! do. What each field promises is written in `sdk/wit/README.md`.

/// A column by name and type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// the column's name
    pub name: String,
    /// Arrow C Data Interface format string; empty: the column can be passed, not read
    pub format: String,
    /// whether it may hold nulls
    pub nullable: bool,
}

/// What the host offers: the driving table first, then each lookup under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// the table's or the lookup's name
    pub name: String,
    /// its columns
    pub fields: Vec<Field>,
    /// names of the columns that identify a row
    pub key: Vec<String>,
}

/// A field of a relation, both by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnRef {
    /// position among the relations
    pub relation: u32,
    /// position among the relation's fields
    pub field: u32,
}

/// A column of the output table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputField {
    /// made by the module
    Computed {
        /// its name and type
        field: Field,
        /// where its values stand in [`Columns::columns`]
        column: u32,
    },
    /// an input column that goes through untouched
    Passed {
        /// its name in the output
        name: String,
        /// where it comes from
        from: ColumnRef,
    },
}

impl OutputField {
    /// The column's name in the output.
    pub fn name(&self) -> &str {
        match self {
            OutputField::Computed { field, .. } => &field.name,
            OutputField::Passed { name, .. } => name,
        }
    }
}

/// What a module declares of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// the columns it wants, in the order it wants them
    pub reads: Vec<ColumnRef>,
    /// the columns of the output table
    pub writes: Vec<OutputField>,
    /// which of `writes` identify a row; empty: the owner's key does
    pub key: Vec<u32>,
}

/// A column in Arrow's physical layout; buffer 0 is the validity bitmap, empty where nothing is null.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Column {
    /// number of values
    pub length: u32,
    /// how many are null
    pub null_count: u32,
    /// validity, then what the type has
    pub buffers: Vec<Vec<u8>>,
    /// always 0 in this version
    pub children: u32,
}

/// The rows a module gives for a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// the computed columns
    pub columns: Vec<Column>,
    /// the input row of each output row; `None`: one to one, nothing rejected
    pub source_rows: Option<Vec<u32>>,
    /// rows for the dead-letter table, and why
    pub rejected: Vec<(u32, String)>,
}

/// The columns a module asked for, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// names and types, one a column
    pub fields: Vec<Field>,
    /// number of rows
    pub rows: u32,
    /// the values
    pub columns: Vec<Column>,
}

impl Batch {
    /// The values of column `name` as `T`, for modules that work on whole columns.
    ///
    /// # Errors
    /// The column was not among those read, or is of another type.
    pub fn read<'a, T: crate::Cell<'a>>(&'a self, name: &str) -> Result<crate::Values<'a, T>, String> {
        let position = self.fields.iter().position(|field| field.name == name);
        let found = position.and_then(|n| Some((self.fields.get(n)?, self.columns.get(n)?)));
        let (field, column) = found.ok_or_else(|| format!("column `{name}` was not asked for in `describe`"))?;
        Ok(crate::Values { reader: T::open(column, &field.format)?, rows: self.rows as usize })
    }
}
