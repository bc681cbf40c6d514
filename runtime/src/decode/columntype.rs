//! The types of MySQL and MariaDB columns, and the Arrow types they become.
//!
//! Receives type names as the schema-change topic, a Connect schema or the pipeline file spell them. Promises one
//! [`ColumnType`] a name. Knows nothing of how values are written.

use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};

use super::connect::Field;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// TINYINT
    Int8,
    /// SMALLINT, TINYINT UNSIGNED
    Int16,
    /// INT, MEDIUMINT, SMALLINT UNSIGNED
    Int32,
    /// BIGINT, INT UNSIGNED
    Int64,
    /// BIGINT UNSIGNED
    UInt64,
    /// DECIMAL of up to 38 digits
    Decimal {
        /// digits in all
        precision: u8,
        /// digits after the point
        scale: i8,
    },
    /// DECIMAL of more than 38 digits, as text
    BigDecimal {
        /// digits after the point
        scale: u8,
    },
    /// FLOAT
    Float32,
    /// DOUBLE
    Float64,
    /// DATE
    Date,
    /// DATETIME
    DateTime {
        /// fractional digits
        places: u8,
    },
    /// TIMESTAMP
    Timestamp,
    /// TIME
    Time {
        /// fractional digits, where known
        places: Option<u8>,
    },
    /// YEAR
    Year,
    /// BIT(1)
    Bit,
    /// BIT of 2 to 64 bits
    Bits {
        /// number of bits
        length: u8,
    },
    /// CHAR, VARCHAR, TEXT, ENUM, SET
    Text,
    /// JSON, and types without an Arrow type of their own, as JSON text
    Json,
    /// BINARY, VARBINARY, BLOB
    Binary,
}

impl ColumnType {
    /// The Arrow type of the column.
    pub fn data_type(self) -> DataType {
        match self {
            ColumnType::Int8 => DataType::Int8,
            ColumnType::Int16 => DataType::Int16,
            ColumnType::Int32 | ColumnType::Year => DataType::Int32,
            ColumnType::Int64 => DataType::Int64,
            ColumnType::UInt64 => DataType::Decimal128(20, 0),
            ColumnType::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
            ColumnType::Float32 => DataType::Float32,
            ColumnType::Float64 => DataType::Float64,
            ColumnType::Date => DataType::Date32,
            ColumnType::DateTime { .. } => DataType::Timestamp(TimeUnit::Microsecond, None),
            ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
            ColumnType::Bit => DataType::Boolean,
            ColumnType::Bits { length: 64 } => DataType::Decimal128(20, 0),
            ColumnType::Bits { .. } => DataType::Int64,
            ColumnType::Binary => DataType::Binary,
            ColumnType::Time { .. } | ColumnType::BigDecimal { .. } | ColumnType::Text | ColumnType::Json => {
                DataType::Utf8
            }
        }
    }

    /// The word for messages.
    pub(super) fn word(self) -> &'static str {
        match self {
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

    /// From MySQL's name of the type; `length` and `scale` as the schema-change topic gives them.
    pub(super) fn of_mysql(name: &str, length: Option<i64>, scale: Option<i64>) -> ColumnType {
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
            "CHAR" | "VARCHAR" | "CHARACTER" | "NCHAR" | "NVARCHAR" | "NATIONAL" | "TINYTEXT" | "TEXT"
            | "MEDIUMTEXT" | "LONGTEXT" | "ENUM" | "SET" | "UUID" | "INET4" | "INET6" => ColumnType::Text,
            "LONG" if rest.contains(&"VARBINARY") => ColumnType::Binary,
            "LONG" => ColumnType::Text,
            "BINARY" | "VARBINARY" | "TINYBLOB" | "BLOB" | "MEDIUMBLOB" | "LONGBLOB" => ColumnType::Binary,
            _ => ColumnType::Json,
        }
    }

    fn decimal(precision: i64, scale: i64) -> ColumnType {
        let precision = precision.clamp(1, 65);
        let scale = scale.clamp(0, precision.min(38));
        if precision > 38 {
            return ColumnType::BigDecimal { scale: u8::try_from(scale).unwrap_or(0) };
        }
        ColumnType::Decimal {
            precision: u8::try_from(precision).unwrap_or(38),
            scale: i8::try_from(scale).unwrap_or(0),
        }
    }

    /// From a field of a Connect schema, where the database's own type is not known.
    pub(super) fn of_connect(field: &Field) -> ColumnType {
        match field.semantic.as_str() {
            "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" | "io.debezium.time.IsoDate" => {
                ColumnType::Date
            }
            "io.debezium.time.Timestamp"
            | "io.debezium.time.MicroTimestamp"
            | "io.debezium.time.NanoTimestamp"
            | "io.debezium.time.IsoTimestamp"
            | "org.apache.kafka.connect.data.Timestamp" => ColumnType::DateTime { places: 6 },
            "io.debezium.time.ZonedTimestamp" => ColumnType::Timestamp,
            "io.debezium.time.Time"
            | "io.debezium.time.MicroTime"
            | "io.debezium.time.NanoTime"
            | "io.debezium.time.IsoTime"
            | "org.apache.kafka.connect.data.Time" => ColumnType::Time { places: None },
            "io.debezium.time.Year" => ColumnType::Year,
            "io.debezium.data.Json" => ColumnType::Json,
            "io.debezium.data.Bits" => match field.parameter("length").and_then(|l| l.parse().ok()).unwrap_or(64) {
                0 | 1 => ColumnType::Bit,
                n => ColumnType::Bits { length: n },
            },
            "org.apache.kafka.connect.data.Decimal" => {
                let scale = field.parameter("scale").and_then(|s| s.parse().ok()).unwrap_or(0);
                let precision = field.parameter("connect.decimal.precision").and_then(|p| p.parse().ok());
                ColumnType::decimal(precision.unwrap_or(38), scale)
            }
            _ => match field.base.as_str() {
                "int8" => ColumnType::Int8,
                "int16" => ColumnType::Int16,
                "int32" => ColumnType::Int32,
                "int64" => ColumnType::Int64,
                "float" | "float32" => ColumnType::Float32,
                "double" | "float64" => ColumnType::Float64,
                "boolean" => ColumnType::Bit,
                "bytes" => ColumnType::Binary,
                "string" => ColumnType::Text,
                _ => ColumnType::Json,
            },
        }
    }
}

impl FromStr for ColumnType {
    type Err = String;

    /// From MySQL's spelling: `bigint unsigned`, `decimal(12,2)`, `datetime(6)`, `varbinary(16)`.
    fn from_str(text: &str) -> Result<Self, String> {
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
        let found = ColumnType::of_mysql(&full, length, scale);
        if found == ColumnType::Json && !full.trim().eq_ignore_ascii_case("json") {
            return Err(wrong());
        }
        Ok(found)
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
            assert_eq!(text.parse::<ColumnType>(), Ok(want), "{text}");
        }
        for text in ["", "sometype", "decimal(1,2,3)", "decimal(x)", "int("] {
            assert!(text.parse::<ColumnType>().is_err(), "{text}");
        }
    }
}
