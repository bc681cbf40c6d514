//! Building a description: what a module reads and writes, checked against the relations offered, with errors that
//! name the nearest column.

use crate::contract::{ColumnRef, Description, Field, OutputField, Relation};
use crate::input::{Cell, Wanted};
use crate::output::Value;

/// What the host adds to the driving relation beside the table's own columns.
const PSEUDO: [&str; 3] = ["_op", "_seq", "_source_ts"];

/// Builds a [`Description`]. Row functions get theirs from `#[transform]`.
#[derive(Debug)]
pub struct Describe<'a> {
    relations: &'a [Relation],
    reads: Vec<ColumnRef>,
    computed: Vec<Field>,
    passed: Vec<&'a str>,
    key: Option<Vec<String>>,
}

impl<'a> Describe<'a> {
    /// Nothing read, nothing written yet.
    ///
    /// # Errors
    /// The host offered no relation.
    pub fn new(relations: &'a [Relation]) -> Result<Self, String> {
        if relations.is_empty() {
            return Err("no relation was offered".to_owned());
        }
        Ok(Describe { relations, reads: Vec::new(), computed: Vec::new(), passed: Vec::new(), key: None })
    }

    /// Reads column `name`, of a lookup as `lookup.column`, as a `T`.
    ///
    /// # Errors
    /// There is no such column, or it cannot be read as a `T`.
    pub fn read<T: Cell<'static>>(self, name: &'static str) -> Result<Self, String> {
        self.want(&Wanted { name, expects: T::expects(), accepts: T::accepts })
    }

    pub(crate) fn want(mut self, wanted: &Wanted) -> Result<Self, String> {
        let (reference, field) = find(self.relations, wanted.name)?;
        if !(wanted.accepts)(&field.format) {
            return Err(format!(
                "column `{}` is {}; the module reads it as {}",
                wanted.name,
                say_format(&field.format),
                wanted.expects
            ));
        }
        self.reads.push(reference);
        Ok(self)
    }

    /// Writes column `name` of `T`s; in the output it stands where the driving table has a column of that name,
    /// otherwise after the others. Columns of [`crate::Columns`] follow the order of these calls.
    #[must_use]
    pub fn write<T: Value>(self, name: &str) -> Self {
        self.write_field(Field { name: name.to_owned(), format: T::format(), nullable: T::NULLABLE })
    }

    pub(crate) fn write_field(mut self, field: Field) -> Self {
        self.computed.push(field);
        self
    }

    /// Lets every column of the driving table that is not written go through untouched, save those in `but`.
    ///
    /// # Errors
    /// A name in `but` is no column.
    pub fn pass_rest(mut self, but: &[&str]) -> Result<Self, String> {
        for name in but {
            find(self.relations, name)?;
        }
        let driving = self.relations.first().map(|r| r.fields.as_slice()).unwrap_or_default();
        let rest = driving.iter().map(|field| field.name.as_str());
        self.passed = rest.filter(|name| !PSEUDO.contains(name) && !but.contains(name)).collect();
        Ok(self)
    }

    /// Lets column `name` of the driving table go through untouched.
    ///
    /// # Errors
    /// There is no such column.
    pub fn pass(mut self, name: &'a str) -> Result<Self, String> {
        find(self.relations, name)?;
        self.passed.push(name);
        Ok(self)
    }

    /// The output columns that identify a row. Without this they are the driving table's key, where all of it is
    /// written.
    #[must_use]
    pub fn key(mut self, names: &[&str]) -> Self {
        self.key = Some(names.iter().map(|name| (*name).to_owned()).collect());
        self
    }

    /// The description.
    ///
    /// # Errors
    /// A key column is not among those written.
    pub fn finish(self) -> Result<Description, String> {
        let mut writes = Vec::new();
        let driving = self.relations.first().map(|r| r.fields.as_slice()).unwrap_or_default();
        let mut placed = vec![false; self.computed.len()];
        for (position, field) in driving.iter().enumerate() {
            if let Some(n) = self.computed.iter().position(|computed| computed.name == field.name) {
                writes.push(self.computed_field(n));
                placed[n] = true;
            } else if self.passed.contains(&field.name.as_str()) {
                let from = ColumnRef { relation: 0, field: position as u32 };
                writes.push(OutputField::Passed { name: field.name.clone(), from });
            }
        }
        for name in self.passed.iter().filter(|name| name.contains('.')) {
            let (from, field) = find(self.relations, name)?;
            if from.relation > 0 {
                writes.push(OutputField::Passed { name: field.name.clone(), from });
            }
        }
        writes.extend((0..placed.len()).filter(|n| !placed[*n]).map(|n| self.computed_field(n)));
        let place = |name: &str| writes.iter().position(|write| write.name() == name).map(|n| n as u32);
        let key = match &self.key {
            Some(names) => names
                .iter()
                .map(|name| place(name).ok_or_else(|| format!("the key column `{name}` is not written")))
                .collect::<Result<_, _>>()?,
            None => {
                let owner = self.relations.first().map(|r| r.key.as_slice()).unwrap_or_default();
                owner.iter().map(|name| place(name)).collect::<Option<_>>().unwrap_or_default()
            }
        };
        Ok(Description { reads: self.reads, writes, key })
    }

    fn computed_field(&self, n: usize) -> OutputField {
        OutputField::Computed { field: self.computed[n].clone(), column: n as u32 }
    }
}

fn find<'a>(relations: &'a [Relation], name: &str) -> Result<(ColumnRef, &'a Field), String> {
    let mut names = Vec::new();
    for (number, relation) in relations.iter().enumerate() {
        for (position, field) in relation.fields.iter().enumerate() {
            let full = match number {
                0 => field.name.clone(),
                _ => format!("{}.{}", relation.name, field.name),
            };
            if full == name {
                return Ok((ColumnRef { relation: number as u32, field: position as u32 }, field));
            }
            names.push(full);
        }
    }
    let table = relations.first().map(|r| r.name.as_str()).unwrap_or_default();
    let nearest = names.iter().min_by_key(|candidate| distance(name, candidate));
    Err(match nearest {
        Some(nearest) if distance(name, nearest) <= name.chars().count().div_ceil(2) => {
            format!("table `{table}` has no column `{name}`; did you mean `{nearest}`?")
        }
        _ => format!("table `{table}` has no column `{name}`; it has {}", names.join(", ")),
    })
}

/// Letters to change, add or take away to make `b` of `a`, whatever their case.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn say_format(format: &str) -> String {
    let known = match format {
        "b" => "a boolean",
        "c" => "an integer of 8 bits",
        "s" => "an integer of 16 bits",
        "i" => "an integer of 32 bits",
        "l" => "an integer of 64 bits",
        "f" => "a float",
        "g" => "a double",
        "u" => "a text",
        "z" => "a binary",
        "tdD" => "a date",
        "tsu:" => "a timestamp without zone",
        "tsu:UTC" => "a timestamp in UTC",
        "" => "of a type that can only be passed",
        _ => return format.strip_prefix("d:").map_or_else(|| format!("`{format}`"), |d| format!("decimal({d})")),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Decimal;

    fn orders() -> Vec<Relation> {
        let field = |name: &str, format: &str| Field { name: name.into(), format: format.into(), nullable: true };
        vec![
            Relation {
                name: "orders".into(),
                fields: vec![
                    field("order_id", "d:20,0"),
                    field("status", "u"),
                    field("total", "d:12,2"),
                    field("_op", "u"),
                ],
                key: vec!["order_id".into()],
            },
            Relation { name: "buyer".into(), fields: vec![field("email", "u")], key: vec!["customer_id".into()] },
        ]
    }

    #[test]
    fn errors_name_the_nearest_column() {
        let relations = orders();
        let error = |name: &'static str| Describe::new(&relations).unwrap().read::<String>(name).unwrap_err();
        assert_eq!(error("statsu"), "table `orders` has no column `statsu`; did you mean `status`?");
        assert_eq!(error("buyer.mail"), "table `orders` has no column `buyer.mail`; did you mean `buyer.email`?");
        assert!(error("zzzzzzzz").ends_with("it has order_id, status, total, _op, buyer.email"));
        assert_eq!(error("total"), "column `total` is decimal(12,2); the module reads it as a text");
        assert!(Describe::new(&relations).unwrap().read::<Decimal<11, 2>>("total").is_err());
        assert!(Describe::new(&relations).unwrap().read::<Decimal<14, 4>>("total").is_ok());
    }

    #[test]
    fn written_columns_keep_their_place_and_the_rest_passes() {
        let relations = orders();
        let description = Describe::new(&relations)
            .and_then(|d| d.read::<String>("status"))
            .unwrap()
            .write::<i64>("extra")
            .write::<String>("status")
            .pass_rest(&["total"])
            .and_then(Describe::finish)
            .unwrap();
        let names: Vec<&str> = description.writes.iter().map(OutputField::name).collect();
        assert_eq!(names, ["order_id", "status", "extra"]);
        assert!(matches!(description.writes[1], OutputField::Computed { column: 1, .. }));
        assert_eq!(description.key, [0]);
    }
}
