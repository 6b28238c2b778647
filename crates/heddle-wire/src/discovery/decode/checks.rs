//! Checks of single values, and how an error comes to name its field.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use heddle_model::name::check_label;
use prost::Message;

/// A field and what is wrong with it. The path grows from the inside out.
pub(super) struct Wrong {
    pub(super) field: String,
    pub(super) reason: String,
}

pub(super) type Checked<T> = Result<T, Wrong>;

impl Wrong {
    pub(super) fn new(field: &str, reason: impl Display) -> Self {
        Self { field: field.to_owned(), reason: reason.to_string() }
    }

    pub(super) fn within(mut self, outer: impl Display) -> Self {
        self.field = if self.field.is_empty() {
            outer.to_string()
        } else {
            format!("{outer}.{}", self.field)
        };
        self
    }
}

pub(super) fn read<M: Message + Default, T>(
    bytes: &[u8],
    convert: impl FnOnce(M) -> Checked<T>,
) -> Result<Checked<T>, prost::DecodeError> {
    M::decode(bytes).map(convert)
}

/// Converts a field that must be there.
pub(super) fn required<M, T>(
    field: &str,
    value: Option<M>,
    convert: impl FnOnce(M) -> Checked<T>,
) -> Checked<T> {
    let value = value.ok_or_else(|| Wrong::new(field, "missing"))?;
    convert(value).map_err(|wrong| wrong.within(field))
}

pub(super) fn optional<M, T>(
    field: &str,
    value: Option<M>,
    convert: impl FnOnce(M) -> Checked<T>,
) -> Checked<Option<T>> {
    value.map(convert).transpose().map_err(|wrong| wrong.within(field))
}

pub(super) fn list<M, T>(
    field: &str,
    values: Vec<M>,
    convert: impl Fn(M) -> Checked<T>,
) -> Checked<Vec<T>> {
    let item = |(index, value)| {
        convert(value).map_err(|wrong| wrong.within(format_args!("{field}[{index}]")))
    };
    values.into_iter().enumerate().map(item).collect()
}

pub(super) fn map<K, M, K2: Ord, T>(
    field: &str,
    values: BTreeMap<K, M>,
    convert: impl Fn(&K, M) -> Checked<(K2, T)>,
) -> Checked<BTreeMap<K2, T>>
where
    K: Display,
{
    let item = |(key, value): (K, M)| {
        convert(&key, value).map_err(|wrong| wrong.within(format_args!("{field}[{key}]")))
    };
    values.into_iter().map(item).collect()
}

pub(super) fn ipv4(field: &str, bytes: &[u8]) -> Checked<Ipv4Addr> {
    let octets: [u8; 4] = bytes
        .try_into()
        .map_err(|_| Wrong::new(field, format_args!("{} bytes, not 4", bytes.len())))?;
    Ok(octets.into())
}

pub(super) fn ipv6(field: &str, bytes: &[u8]) -> Checked<Ipv6Addr> {
    let octets: [u8; 16] = bytes
        .try_into()
        .map_err(|_| Wrong::new(field, format_args!("{} bytes, not 16", bytes.len())))?;
    Ok(octets.into())
}

pub(super) fn ip(field: &str, bytes: &[u8]) -> Checked<IpAddr> {
    match bytes.len() {
        4 => ipv4(field, bytes).map(IpAddr::V4),
        16 => ipv6(field, bytes).map(IpAddr::V6),
        n => Err(Wrong::new(field, format_args!("{n} bytes, not 4 or 16"))),
    }
}

pub(super) fn port(field: &str, number: u32) -> Checked<u16> {
    match u16::try_from(number) {
        Ok(number) if number != 0 => Ok(number),
        _ => Err(Wrong::new(field, format_args!("{number} is no port: use 1 to 65535"))),
    }
}

pub(super) fn label(field: &str, text: &str) -> Checked<()> {
    check_label(text).map_err(|error| Wrong::new(field, error))
}

pub(super) fn not_empty(field: &str, text: &str) -> Checked<()> {
    if text.is_empty() { Err(Wrong::new(field, "empty")) } else { Ok(()) }
}

pub(super) fn distinct(field: &str, mut numbers: impl Iterator<Item = u16>) -> Checked<()> {
    let mut seen = BTreeSet::new();
    match numbers.find(|&number| !seen.insert(number)) {
        Some(number) => Err(Wrong::new(field, format_args!("port {number} is there twice"))),
        None => Ok(()),
    }
}

pub(super) fn prefix(bits: u32, most: u8) -> Checked<u8> {
    match u8::try_from(bits) {
        Ok(bits) if bits <= most => Ok(bits),
        _ => Err(Wrong::new("prefix", format_args!("{bits} bits, at most {most}"))),
    }
}

pub(super) fn percent(value: f64) -> Checked<f64> {
    // NaN is in no range.
    if (0.0..=100.0).contains(&value) {
        return Ok(value);
    }
    Err(Wrong::new("percent", format_args!("{value} is not within 0 to 100")))
}
