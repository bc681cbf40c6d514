//! What a column of the source holds, and the Arrow type it becomes.
//!
//! A type is named after what MySQL calls it; how a database spells it is known in its dialect. Knows nothing of how
//! values are written.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, TimeUnit};

use crate::decode::format::embedded_schema::Field;

/// What a column of the source holds.
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

    /// DECIMAL(`precision`, `scale`).
    pub(crate) fn decimal(precision: i64, scale: i64) -> ColumnType {
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
    pub(crate) fn of_connect(field: &Field) -> ColumnType {
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

/// A column of the source table.
#[derive(Debug, Clone)]
pub(crate) struct ColumnSpec {
    pub(crate) name: String,
    pub(crate) column_type: ColumnType,
    /// an array of the one value that rows older than the column hold; `None`: null
    pub(crate) default: Option<ArrayRef>,
}
