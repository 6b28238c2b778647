//! Bytes to nouns, with every check. An error names the field, so that a NACK can be read.

use heddle_model::wire::{Check, FieldError};
use minicbor::{Decode, Decoder, data::Type};

use super::{Resource, ResourceType, WireResource as _};

/// Deepest nesting that an error's path follows; no resource is as deep.
const PATH_DEPTH_MAX: usize = 24;

/// Why a resource is refused; the text of a NACK.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A type this proxy does not know.
    #[error("`{0}` is no resource type of this version: update the older side")]
    UnknownType(String),
    /// Not in the form it should have.
    #[error("{kind:?} `{name}` is no valid message: {reason}")]
    Malformed {
        /// Its type.
        kind: ResourceType,
        /// Its name.
        name: String,
        /// Where (fields by number, as in `heddle-model`) and what is wrong.
        reason: String,
    },
    /// A field holds what it must not.
    #[error("{kind:?} `{name}`: {field}: {reason}")]
    Field {
        /// Its type.
        kind: ResourceType,
        /// Its name.
        name: String,
        /// Path of the field, e.g. `ports[0].http[2].targets[0].port`.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

/// Decodes and checks one resource, and that it is the one `name` names.
///
/// # Errors
/// [`DecodeError`]: keep the last good one and say so.
pub fn decode(type_url: &str, name: &str, bytes: &[u8]) -> Result<Resource, DecodeError> {
    let kind = ResourceType::from_type_url(type_url)
        .ok_or_else(|| DecodeError::UnknownType(type_url.to_owned()))?;
    let read = match kind {
        ResourceType::Address => read(bytes).map(Resource::Address),
        ResourceType::Name => read(bytes).map(Resource::Name),
        ResourceType::Endpoints => read(bytes).map(Resource::Endpoints),
        ResourceType::Inbound => read(bytes).map(Resource::Inbound),
        ResourceType::Destination => read(bytes).map(Resource::Destination),
        ResourceType::Mesh => read(bytes).map(Resource::Mesh),
    };
    let named = read.and_then(|resource| match resource.name() {
        own if own == name => Ok(resource),
        own => {
            Err(Wrong::Field(FieldError::new("name", format_args!("the content is of `{own}`"))))
        }
    });
    named.map_err(|wrong| match wrong {
        Wrong::Form(reason) => DecodeError::Malformed { kind, name: name.to_owned(), reason },
        Wrong::Field(FieldError { field, reason }) => {
            DecodeError::Field { kind, name: name.to_owned(), field, reason }
        }
    })
}

/// What is wrong with some bytes.
enum Wrong {
    Form(String),
    Field(FieldError),
}

fn read<'b, T: Decode<'b, ()> + Check>(bytes: &'b [u8]) -> Result<T, Wrong> {
    let mut decoder = Decoder::new(bytes);
    let value: T = decoder.decode().map_err(|error| {
        let path = path_to(bytes, error.position().unwrap_or(bytes.len()));
        Wrong::Form(if path.is_empty() { error.to_string() } else { format!("{path}: {error}") })
    })?;
    let rest = bytes.len() - decoder.position();
    if rest != 0 {
        return Err(Wrong::Form(format!("{rest} bytes follow it")));
    }
    value.check().map_err(Wrong::Field)?;
    Ok(value)
}

/// The field that holds the byte at `place`, by numbers: `3[0].4[1].2`.
fn path_to(bytes: &[u8], place: usize) -> String {
    let mut path = String::new();
    let mut decoder = Decoder::new(bytes);
    for _ in 0..PATH_DEPTH_MAX {
        match step(&mut decoder, place) {
            Ok(Some(part)) => path.push_str(&part),
            Ok(None) | Err(_) => break,
        }
    }
    path.trim_start_matches('.').to_owned()
}

/// Goes to the item of a list or map that holds `place`; what cannot be skipped does.
fn step(
    decoder: &mut Decoder<'_>,
    place: usize,
) -> Result<Option<String>, minicbor::decode::Error> {
    let is_map = decoder.datatype()? == Type::Map;
    let len = if is_map { decoder.map()? } else { decoder.array()? };
    for index in 0..len.unwrap_or(0) {
        let part = match is_map {
            false => format!("[{index}]"),
            true if decoder.datatype()? == Type::String => format!("[{}]", decoder.str()?),
            true => format!(".{}", decoder.i64()?),
        };
        let item = decoder.position();
        if decoder.skip().is_err() || decoder.position() > place {
            decoder.set_position(item);
            return Ok(Some(part));
        }
    }
    Ok(None)
}
