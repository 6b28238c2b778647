//! The wire form of the nouns: what minicbor's derive leaves to say.
//!
//! A struct is a map from its fields' numbers (`#[n(1)]`) to their values. Who reads it skips numbers
//! it does not know, and takes the default of a field with `default` that is missing. So a field may
//! be added if it has a default, and removed if it had one; its number is never used again. Choices
//! are written by `closed!`. Whether values make sense is [`Check`]'s business; bytes, their names and
//! their versions are that of `heddle-wire`.

use std::{collections::BTreeSet, fmt::Display, net::IpAddr};

/// Numbers the variants of an enum: `N` on the wire, or `[N, value]` for one that carries something.
///
/// minicbor's own derive takes an `Option` for absent where it holds a variant it does not know. A
/// condition that nobody knows would become no condition at all, so here that is an error.
macro_rules! closed {
    (@encode $e:ident $ctx:ident $number:literal) => {
        $e.u32($number)?
    };
    (@encode $e:ident $ctx:ident $number:literal $inner:ident) => {
        $e.array(2)?.u32($number)?.encode_with($inner, $ctx)?
    };
    (@decode $d:ident $ctx:ident $filled:ident $at:ident $variant:ident) => {{
        if $filled {
            $d.skip()?;
        }
        Ok(Self::$variant)
    }};
    (@decode $d:ident $ctx:ident $filled:ident $at:ident $variant:ident $inner:ident) => {
        if $filled {
            $d.decode_with($ctx).map(Self::$variant)
        } else {
            Err(minicbor::decode::Error::message(concat!(stringify!($variant), " is empty")).at($at))
        }
    };
    ($type:ident { $($number:literal => $variant:ident $(($inner:ident))?),+ $(,)? }) => {
        impl<C> minicbor::Encode<C> for $type {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _ctx: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                match self {
                    $(Self::$variant $(($inner))? => {
                        $crate::wire::closed!(@encode e _ctx $number $($inner)?)
                    })+
                };
                Ok(())
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $type {
            fn decode(
                d: &mut minicbor::Decoder<'b>,
                _ctx: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                let at = d.position();
                let filled = d.datatype()? == minicbor::data::Type::Array;
                if filled && d.array()? != Some(2) {
                    let what = concat!("no ", stringify!($type), ": not [number, value]");
                    return Err(minicbor::decode::Error::message(what).at(at));
                }
                match d.u32()? {
                    $($number => {
                        $crate::wire::closed!(@decode d _ctx filled at $variant $($inner)?)
                    })+
                    other => Err(minicbor::decode::Error::message(format_args!(
                        concat!("{} is no ", stringify!($type), " of this version"),
                        other
                    ))
                    .at(at)),
                }
            }
        }
    };
}
pub(crate) use closed;

/// Addresses below an `Option`, where minicbor's derive would take one of a kind that it does not know
/// for the absence of the whole.
pub(crate) fn known_addresses<'b, C>(
    decoder: &mut minicbor::Decoder<'b>,
    context: &mut C,
) -> Result<Vec<IpAddr>, minicbor::decode::Error> {
    let at = decoder.position();
    decoder.decode_with(context).map_err(|error: minicbor::decode::Error| {
        if error.is_unknown_variant() {
            minicbor::decode::Error::message("an address of a kind unknown to this version").at(at)
        } else {
            error
        }
    })
}

/// What may hold no field that this version does not know: conditions. One that is skipped would be no
/// condition at all, and the rule would meet what it was not written for.
pub(crate) trait Conditions {
    /// The greatest number of a field of this version.
    const LAST: u32;
}

/// A list of alternatives whose conditions are all known.
pub(crate) fn conditions<'b, C, T: Conditions + minicbor::Decode<'b, C>>(
    decoder: &mut minicbor::Decoder<'b>,
    context: &mut C,
) -> Result<Vec<T>, minicbor::decode::Error> {
    only_known::<T>(decoder.clone())?;
    decoder.decode_with(context)
}

/// Looks at the numbers of a list's fields.
fn only_known<T: Conditions>(
    mut ahead: minicbor::Decoder<'_>,
) -> Result<(), minicbor::decode::Error> {
    let at = ahead.position();
    // `Encode` writes lengths before lists and maps.
    let endless = || minicbor::decode::Error::message("conditions without their number").at(at);
    for _ in 0..ahead.array()?.ok_or_else(endless)? {
        for _ in 0..ahead.map()?.ok_or_else(endless)? {
            let at = ahead.position();
            let number = ahead.u32()?;
            if number > T::LAST {
                let what = format_args!("condition {number} is unknown to this version");
                return Err(minicbor::decode::Error::message(what).at(at));
            }
            ahead.skip()?;
        }
    }
    Ok(())
}

/// What must hold of a noun that came from elsewhere, beyond the types of its fields.
pub trait Check {
    /// Looks at every field.
    ///
    /// # Errors
    /// The first field that holds what it must not.
    fn check(&self) -> Result<(), FieldError>;
}

/// A field that holds what it must not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct FieldError {
    /// Path of the field, e.g. `ports[0].http[2].fault.delay.percent`.
    pub field: String,
    /// What is wrong.
    pub reason: String,
}

impl FieldError {
    /// `reason` to refuse `field`.
    pub fn new(field: impl Display, reason: impl Display) -> Self {
        Self { field: field.to_string(), reason: reason.to_string() }
    }

    /// The same error, seen from the noun whose field `outer` is. The path grows from the inside out.
    pub(crate) fn within(mut self, outer: impl Display) -> Self {
        self.field = match self.field.is_empty() {
            true => outer.to_string(),
            false => format!("{outer}.{}", self.field),
        };
        self
    }
}

/// Checks a field by the rules of its own type; one that is absent is fine.
pub(crate) fn field<'a, T: Check + 'a>(
    name: &str,
    value: impl Into<Option<&'a T>>,
) -> Result<(), FieldError> {
    value.into().map_or(Ok(()), Check::check).map_err(|error| error.within(name))
}

/// Checks every item of a list.
pub(crate) fn each<'a, T: Check + 'a>(
    name: &str,
    list: impl IntoIterator<Item = &'a T>,
) -> Result<(), FieldError> {
    let mut all = list.into_iter().enumerate();
    all.try_for_each(|(at, one)| {
        one.check().map_err(|error| error.within(format_args!("{name}[{at}]")))
    })
}

/// Checks every entry of a map.
pub(crate) fn entries<K: Display, V>(
    name: &str,
    map: impl IntoIterator<Item = (K, V)>,
    check: impl Fn(&K, V) -> Result<(), FieldError>,
) -> Result<(), FieldError> {
    let mut all = map.into_iter();
    all.try_for_each(|(key, value)| {
        check(&key, value).map_err(|error| error.within(format_args!("{name}[{key}]")))
    })
}

pub(crate) fn port(field: &str, number: u16) -> Result<(), FieldError> {
    if number == 0 {
        return Err(FieldError::new(field, "0 is no port: use 1 to 65535"));
    }
    Ok(())
}

pub(crate) fn not_empty(field: &str, text: &str) -> Result<(), FieldError> {
    if text.is_empty() { Err(FieldError::new(field, "empty")) } else { Ok(()) }
}

pub(crate) fn distinct(
    field: &str,
    mut numbers: impl Iterator<Item = u16>,
) -> Result<(), FieldError> {
    let mut seen = BTreeSet::new();
    match numbers.find(|&number| !seen.insert(number)) {
        Some(number) => Err(FieldError::new(field, format_args!("port {number} is there twice"))),
        None => Ok(()),
    }
}

pub(crate) fn prefix(field: &str, bits: u8, most: u8) -> Result<(), FieldError> {
    if bits > most {
        return Err(FieldError::new(field, format_args!("{bits} bits, at most {most}")));
    }
    Ok(())
}

pub(crate) fn percent(value: f64) -> Result<(), FieldError> {
    // NaN is in no range.
    if (0.0..=100.0).contains(&value) {
        return Ok(());
    }
    Err(FieldError::new("percent", format_args!("{value} is not within 0 to 100")))
}
