//! How MySQL and MariaDB spell the types of columns.
//!
//! Receives type names as the schema-change topic or the pipeline file give them. Promises one [`ColumnType`] a name; of
//! a name that is not known, the values are kept as JSON text.

use crate::decode::value::column_type::ColumnType;

/// The type that MySQL spells `text`: `bigint unsigned`, `decimal(12,2)`, `datetime(6)`, `varbinary(16)`.
///
/// # Errors
/// That `text` is no type.
pub fn column_type(text: &str) -> Result<ColumnType, String> {
    let wrong = || format!("`{text}` is not a column type");
    let (name, arguments, tail) = match text.split_once('(') {
        None => (text, "", ""),
        Some((name, rest)) => {
            let (arguments, tail) = rest.split_once(')').ok_or_else(wrong)?;
            (name, arguments, tail)
        }
    };
    let enumerated = matches!(name.trim().to_ascii_uppercase().as_str(), "ENUM" | "SET");
    let mut numbers = [None, None];
    if !arguments.is_empty() && !enumerated {
        let mut parts = arguments.split(',');
        for slot in &mut numbers {
            if let Some(part) = parts.next() {
                *slot = Some(part.trim().parse::<i64>().map_err(|_| wrong())?);
            }
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
    }
    let [length, scale] = numbers;
    let full = format!("{} {}", name.trim(), tail.trim());
    let found = named_type(&full, length, scale);
    if found == ColumnType::Json && !full.trim().eq_ignore_ascii_case("json") {
        return Err(wrong());
    }
    Ok(found)
}

/// The type that MySQL calls `name`; `length` and `scale` as the schema-change topic gives them.
pub(crate) fn named_type(name: &str, length: Option<i64>, scale: Option<i64>) -> ColumnType {
    let upper = name.to_ascii_uppercase();
    let mut words = upper.split_ascii_whitespace();
    let first = words.next().unwrap_or_default();
    let rest: Vec<&str> = words.collect();
    let unsigned = rest.iter().any(|w| matches!(*w, "UNSIGNED" | "ZEROFILL"));
    // some give the width of the printed value instead: 19 characters, and a point before the fraction
    let places = match length.unwrap_or(0) {
        n @ 0..=6 => n,
        n @ 21..=26 => n - 20,
        _ => 0,
    };
    let places = u8::try_from(places).unwrap_or(0);
    match first {
        "BOOL" | "BOOLEAN" => ColumnType::Int8,
        "TINYINT" | "INT1" if unsigned => ColumnType::Int16,
        "TINYINT" | "INT1" => ColumnType::Int8,
        "SMALLINT" | "INT2" if unsigned => ColumnType::Int32,
        "SMALLINT" | "INT2" => ColumnType::Int16,
        "MEDIUMINT" | "MIDDLEINT" | "INT3" => ColumnType::Int32,
        "INT" | "INTEGER" | "INT4" if unsigned => ColumnType::Int64,
        "INT" | "INTEGER" | "INT4" => ColumnType::Int32,
        "SERIAL" => ColumnType::UInt64,
        "BIGINT" | "INT8" if unsigned => ColumnType::UInt64,
        "BIGINT" | "INT8" => ColumnType::Int64,
        "DECIMAL" | "NUMERIC" | "FIXED" | "DEC" => ColumnType::decimal(length.unwrap_or(10), scale.unwrap_or(0)),
        "FLOAT" if length.is_some_and(|l| l > 24) && scale.is_none() => ColumnType::Float64,
        "FLOAT" | "FLOAT4" => ColumnType::Float32,
        "DOUBLE" | "REAL" | "FLOAT8" => ColumnType::Float64,
        "DATE" => ColumnType::Date,
        "DATETIME" => ColumnType::DateTime { places },
        "TIMESTAMP" => ColumnType::Timestamp,
        "TIME" => ColumnType::Time { places: Some(places) },
        "YEAR" => ColumnType::Year,
        "BIT" => match length.unwrap_or(1) {
            ..=1 => ColumnType::Bit,
            n => ColumnType::Bits { length: u8::try_from(n.min(64)).unwrap_or(64) },
        },
        "CHAR" | "VARCHAR" | "CHARACTER" if rest.contains(&"BYTE") || rest.contains(&"BINARY") => ColumnType::Text,
        "CHAR" | "VARCHAR" | "CHARACTER" | "NCHAR" | "NVARCHAR" | "NATIONAL" | "TINYTEXT" | "TEXT" | "MEDIUMTEXT"
        | "LONGTEXT" | "ENUM" | "SET" | "UUID" | "INET4" | "INET6" => ColumnType::Text,
        "LONG" if rest.contains(&"VARBINARY") => ColumnType::Binary,
        "LONG" => ColumnType::Text,
        "BINARY" | "VARBINARY" | "TINYBLOB" | "BLOB" | "MEDIUMBLOB" | "LONGBLOB" => ColumnType::Binary,
        _ => ColumnType::Json,
    }
}

/// What MySQL calls the type, for messages.
pub(crate) fn type_word(column: ColumnType) -> &'static str {
    match column {
        ColumnType::Int8 => "TINYINT",
        ColumnType::Int16 => "SMALLINT",
        ColumnType::Int32 => "INT",
        ColumnType::Int64 => "BIGINT",
        ColumnType::UInt64 => "BIGINT UNSIGNED",
        ColumnType::Decimal { .. } | ColumnType::BigDecimal { .. } => "DECIMAL",
        ColumnType::Float32 => "FLOAT",
        ColumnType::Float64 => "DOUBLE",
        ColumnType::Date => "DATE",
        ColumnType::DateTime { .. } => "DATETIME",
        ColumnType::Timestamp => "TIMESTAMP",
        ColumnType::Time { .. } => "TIME",
        ColumnType::Year => "YEAR",
        ColumnType::Bit | ColumnType::Bits { .. } => "BIT",
        ColumnType::Text => "text",
        ColumnType::Json => "JSON",
        ColumnType::Binary => "binary",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_spelling_of_mysql() {
        let cases = [
            ("bigint unsigned", ColumnType::UInt64),
            ("BIGINT(20) UNSIGNED", ColumnType::UInt64),
            ("tinyint(1)", ColumnType::Int8),
            ("tinyint unsigned", ColumnType::Int16),
            ("decimal(12,2)", ColumnType::Decimal { precision: 12, scale: 2 }),
            ("decimal(65, 30)", ColumnType::BigDecimal { scale: 30 }),
            ("datetime(6)", ColumnType::DateTime { places: 6 }),
            ("time", ColumnType::Time { places: Some(0) }),
            ("bit(9)", ColumnType::Bits { length: 9 }),
            ("enum('a','b')", ColumnType::Text),
            ("double precision", ColumnType::Float64),
            ("json", ColumnType::Json),
        ];
        for (text, want) in cases {
            assert_eq!(column_type(text), Ok(want), "{text}");
        }
        for text in ["", "sometype", "decimal(1,2,3)", "decimal(x)", "int("] {
            assert!(column_type(text).is_err(), "{text}");
        }
    }
}
