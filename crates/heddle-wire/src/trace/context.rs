//! Where in which trace a request is: the ids, the decision, and how they are read from digits. Fields are
//! `w3c`'s and `b3`'s.

use std::{
    fmt,
    num::{NonZeroU64, NonZeroU128},
};

/// Which trace: 128 bits, or the 64 that some senders of B3 use, which stay 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId {
    pub(super) bits: NonZeroU128,
    pub(super) short: bool,
}

impl TraceId {
    /// One of 128 bits; of zero, which is none, becomes one.
    #[must_use]
    pub fn of(bits: u128) -> Self {
        Self { bits: NonZeroU128::new(bits).unwrap_or(NonZeroU128::MIN), short: false }
    }

    /// One of 64 bits.
    #[must_use]
    pub fn short(bits: u64) -> Self {
        Self { short: true, ..Self::of(bits.into()) }
    }

    /// As 16 bytes, those that are not there zero.
    #[must_use]
    pub fn bytes(self) -> [u8; 16] {
        self.bits.get().to_be_bytes()
    }

    /// Are both the same, where one of them may have lost its upper half on the way?
    #[must_use]
    pub fn is_same(self, other: Self) -> bool {
        let (a, b) = (self.bits.get(), other.bits.get());
        a == b || ((self.short || other.short) && a as u64 == b as u64)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.short { write!(f, "{:016x}", self.bits) } else { write!(f, "{:032x}", self.bits) }
    }
}

/// Which span of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

impl SpanId {
    /// Of zero, which is none, becomes one.
    #[must_use]
    pub fn of(bits: u64) -> Self {
        Self(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }

    /// As 8 bytes.
    #[must_use]
    pub fn bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What was decided about recording a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Decision {
    /// Nothing yet: whoever comes next decides.
    #[default]
    Deferred,
    /// It is not recorded.
    Drop,
    /// It is recorded.
    Record,
    /// It is recorded, whatever somebody's sampler says (B3's debug flag).
    Debug,
}

impl Decision {
    /// Is it recorded? `None` while nobody has decided.
    #[must_use]
    pub fn records(self) -> Option<bool> {
        match self {
            Self::Deferred => None,
            Self::Drop => Some(false),
            Self::Record | Self::Debug => Some(true),
        }
    }
}

/// Forms in which a context travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Formats(u8);

impl Formats {
    /// `traceparent`.
    pub const W3C: Self = Self(1);
    /// `b3`.
    pub const B3: Self = Self(2);
    /// `x-b3-traceid` and its like.
    pub const B3_MULTI: Self = Self(4);
    /// What a context is begun in, so that applications of either kind find one to pass on.
    pub const BEGUN: Self = Self(1 | 4);
    /// Each with its name.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::W3C, "w3c"), (Self::B3, "b3"), (Self::B3_MULTI, "b3-multi")];

    /// Are all of `other` among them?
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Is it none?
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// A place in a trace: its id, a span of it, and what was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanContext {
    /// Which trace.
    pub trace: TraceId,
    /// Which span: seen by whoever gets it, the parent of its own.
    pub span: SpanId,
    /// That span's parent, where B3 tells it.
    pub parent: Option<SpanId>,
    /// Is the trace recorded?
    pub decision: Decision,
    /// Further flags of W3C's, as they came.
    pub(super) flags: u8,
}

impl SpanContext {
    /// The first span of a trace.
    #[must_use]
    pub fn begin(trace: TraceId, span: SpanId, decision: Decision) -> Self {
        Self { trace, span, parent: None, decision, flags: 0 }
    }

    /// A span below this one.
    #[must_use]
    pub fn child(self, span: SpanId, decision: Decision) -> Self {
        Self { span, parent: Some(self.span), decision, ..self }
    }

    /// The same place, where it is decided now.
    #[must_use]
    pub fn decided(self, decision: Decision) -> Self {
        Self { decision, ..self }
    }
}

/// The value of a field that stands on one line; `Err` where it stands on several.
pub(super) type Value = Result<Option<String>, Malformed>;

/// Fields that say what nobody can mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// What one form says.
pub(super) struct Said {
    pub(super) context: Option<SpanContext>,
    pub(super) decision: Decision,
}

impl From<SpanContext> for Said {
    fn from(context: SpanContext) -> Self {
        Self { context: Some(context), decision: context.decision }
    }
}

/// A number of hexadecimal digits, and no other character; `lower`: none of capitals.
pub(super) fn hex(text: &str, lower: bool) -> Result<u128, Malformed> {
    let digit = |byte: u8| match byte {
        b'A'..=b'F' => !lower,
        byte => byte.is_ascii_hexdigit(),
    };
    if text.is_empty() || !text.bytes().all(digit) {
        return Err(Malformed);
    }
    u128::from_str_radix(text, 16).map_err(|_| Malformed)
}

pub(super) fn trace_id(text: &str, lower: bool) -> Result<TraceId, Malformed> {
    let bits = NonZeroU128::new(hex(text, lower)?).ok_or(Malformed)?;
    match text.len() {
        32 => Ok(TraceId { bits, short: false }),
        16 => Ok(TraceId { bits, short: true }),
        _ => Err(Malformed),
    }
}

pub(super) fn span_id(text: &str, lower: bool) -> Result<SpanId, Malformed> {
    let bits = u64::try_from(hex(text, lower)?).map_err(|_| Malformed)?;
    match text.len() {
        16 => NonZeroU64::new(bits).map(SpanId).ok_or(Malformed),
        _ => Err(Malformed),
    }
}
