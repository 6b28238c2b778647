//! How OTLP's JSON writes what JSON has no form for: ids in hexadecimal, 64-bit numbers as texts, choices by number or by
//! name.

use serde::{Deserialize as _, Deserializer};
use serde_json::Value;

use super::received::hex;

/// Values of a list that are told.
const LIST_MAX: usize = 16;

/// An id in hexadecimal.
pub(super) fn id_bytes<'de, D: Deserializer<'de>>(reader: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(reader)?;
    let id = hex(&text, 32).unwrap_or(0).to_be_bytes();
    Ok(match text.len() {
        32 => id.to_vec(),
        16 => id[8..].to_vec(),
        _ => Vec::new(),
    })
}

/// A number, or a text with one.
pub(super) fn unsigned<'de, D: Deserializer<'de>>(reader: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(reader)?;
    Ok(value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0))
}

/// The same with a sign, perhaps none.
pub(super) fn signed<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<i64>, D::Error> {
    let value = Value::deserialize(reader)?;
    Ok(value.as_i64().or_else(|| value.as_str()?.parse().ok()))
}

/// The number of a choice, or its name.
pub(super) fn choice<'de, D: Deserializer<'de>>(reader: D) -> Result<i32, D::Error> {
    let value = Value::deserialize(reader)?;
    let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
    Ok(number.unwrap_or_else(|| match value.as_str().unwrap_or_default() {
        "SPAN_KIND_INTERNAL" | "STATUS_CODE_OK" => 1,
        "SPAN_KIND_SERVER" | "STATUS_CODE_ERROR" => 2,
        "SPAN_KIND_CLIENT" => 3,
        "SPAN_KIND_PRODUCER" => 4,
        "SPAN_KIND_CONSUMER" => 5,
        _ => 0,
    }))
}

/// The values of a list in one line each; what is in lists within it is told as JSON.
pub(super) fn texts<'de, D: Deserializer<'de>>(reader: D) -> Result<Vec<String>, D::Error> {
    let value = Value::deserialize(reader)?;
    let values = value["values"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |one: &Value| match one.as_object().and_then(|one| one.values().next()) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => one.to_string(),
    };
    Ok(values.iter().take(LIST_MAX).map(text).collect())
}
