//! Arrow types as the format strings of the contract, and back. The list is closed: what is not in it is not offered
//! for reading and not taken from a module.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, TimeUnit};

/// The format string of `data_type`; `None` where the contract has none.
pub(super) fn format_of(data_type: &DataType) -> Option<String> {
    let format = match data_type {
        DataType::Boolean => "b".into(),
        DataType::Int8 => "c".into(),
        DataType::Int16 => "s".into(),
        DataType::Int32 => "i".into(),
        DataType::Int64 => "l".into(),
        DataType::Float32 => "f".into(),
        DataType::Float64 => "g".into(),
        DataType::Utf8 => "u".into(),
        DataType::Binary => "z".into(),
        DataType::Date32 => "tdD".into(),
        DataType::Decimal128(precision, scale) => format!("d:{precision},{scale}"),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "tsu:".into(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if is_utc(zone) => "tsu:UTC".into(),
        _ => return None,
    };
    Some(format)
}

/// The type in which a column of `data_type` crosses into a module; `None` where it cannot.
pub(super) fn crossing_type(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => Some(DataType::Utf8),
        DataType::BinaryView | DataType::LargeBinary => Some(DataType::Binary),
        DataType::Dictionary(_, value) => crossing_type(value),
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if is_utc(zone) => {
            Some(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
        }
        other => format_of(other).map(|_| other.clone()),
    }
}

/// The type that `format` names; the error lists what there is.
pub(super) fn parse_format(format: &str) -> Result<DataType, String> {
    let data_type = match format {
        "b" => DataType::Boolean,
        "c" => DataType::Int8,
        "s" => DataType::Int16,
        "i" => DataType::Int32,
        "l" => DataType::Int64,
        "f" => DataType::Float32,
        "g" => DataType::Float64,
        "u" => DataType::Utf8,
        "z" => DataType::Binary,
        "tdD" => DataType::Date32,
        "tsu:" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "tsu:UTC" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        _ => return parse_decimal(format),
    };
    Ok(data_type)
}

fn parse_decimal(format: &str) -> Result<DataType, String> {
    let unknown = || {
        format!(
            "the format `{}` is none of b c s i l f g u z tdD tsu: tsu:UTC d:precision,scale",
            format.chars().take(40).collect::<String>().escape_debug()
        )
    };
    let (precision, scale) = format.strip_prefix("d:").and_then(|d| d.split_once(',')).ok_or_else(unknown)?;
    let precision: u8 = precision.parse().map_err(|_| unknown())?;
    let scale: i8 = scale.parse().map_err(|_| unknown())?;
    if !(1..=DECIMAL128_MAX_PRECISION).contains(&precision) || scale < 0 || scale.unsigned_abs() > precision {
        return Err(format!("the decimal `{format}` needs a precision of 1 to 38 and a scale of 0 to its precision"));
    }
    Ok(DataType::Decimal128(precision, scale))
}

fn is_utc(zone: &str) -> bool {
    zone.eq_ignore_ascii_case("utc") || matches!(zone, "+00:00" | "Z" | "Etc/UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_names_one_type_and_back() {
        for format in ["b", "c", "s", "i", "l", "f", "g", "u", "z", "tdD", "tsu:", "tsu:UTC", "d:38,0", "d:12,12"] {
            let data_type = parse_format(format).unwrap();
            assert_eq!(format_of(&data_type).as_deref(), Some(format));
            assert_eq!(crossing_type(&data_type), Some(data_type));
        }
    }

    #[test]
    fn unknown_formats_are_refused() {
        for format in
            ["", "U", "+l", "d:", "d:39,0", "d:0,0", "d:10,11", "d:10,-1", "d:1e9,0", "tsn:", "tsu:CET", "d:5,2,256"]
        {
            assert!(parse_format(format).is_err(), "{format}");
        }
    }
}
