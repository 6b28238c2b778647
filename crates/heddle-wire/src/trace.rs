//! Trace context as it crosses a hop: what the fields of a request say about its trace ([`Incoming`]), and what
//! they are to say at the next hop ([`SpanContext::write`]). W3C's `traceparent`, `b3`, and the `x-b3-*` of
//! Zipkin. `tracestate` goes with its `traceparent` and is nobody's to change here.
//!
//! What is malformed counts as absent, and is told apart, so that somebody can count it. Which requests are
//! sampled is decided elsewhere; spans are in [`span`], and written for their receivers in [`otlp`] and [`zipkin`].
//! Those that others made are read in [`read_otlp`] and [`read_zipkin`], and are [`received`] then.

mod b3;
mod context;
pub mod otlp;
mod otlp_json;
pub mod otlp_logs;
pub mod read_otlp;
pub mod read_zipkin;
pub mod received;
pub mod span;
mod w3c;
pub mod zipkin;

pub use b3::{B3, FLAGS, NOT_RECORDED, PARENT_SPAN_ID, SAMPLED, SPAN_ID, TRACE_ID};
pub use context::{Decision, Formats, SpanContext, SpanId, TraceId};
use context::{Malformed, Said, Value};
pub use w3c::{TRACEPARENT, TRACESTATE};

impl SpanContext {
    /// Gives the fields that say this, in each of `formats`: name and value.
    pub fn write(&self, formats: Formats, mut put: impl FnMut(&'static str, String)) {
        if formats.has(Formats::W3C) {
            put(TRACEPARENT, w3c::text(self));
        }
        if formats.has(Formats::B3) {
            put(B3, b3::text(self));
        }
        if formats.has(Formats::B3_MULTI) {
            b3::write(self, put);
        }
    }
}

/// What a request says about its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Incoming {
    /// Where in which trace it is; `None`: in none yet.
    pub context: Option<SpanContext>,
    /// What was decided; of a context its own, and B3 can decide before there is one.
    pub decision: Decision,
    /// In which forms that is said.
    pub formats: Formats,
    /// Which say something that nobody can mean.
    pub malformed: Formats,
}

impl Incoming {
    /// Reads what a request says. `lines` gives each line of the field of a (lower-case) name.
    ///
    /// Of several contexts that are of different traces the first counts, in the order W3C, `b3`, `x-b3-*`; the
    /// others stay whose they are.
    pub fn read(mut lines: impl FnMut(&'static str, &mut dyn FnMut(&str))) -> Self {
        let mut value = |name: &'static str| -> Value {
            let mut found = Ok(None);
            lines(name, &mut |line| {
                found = match found {
                    Ok(None) => Ok(Some(line.trim().to_owned())),
                    _ => Err(Malformed),
                };
            });
            found
        };
        let mut said = Self::default();
        said.take(Formats::W3C, w3c::read(&mut value));
        said.take(Formats::B3, b3::read_single(&mut value));
        said.take(Formats::B3_MULTI, b3::read_multi(&mut value));
        said
    }

    /// Takes in what one form says.
    fn take(&mut self, format: Formats, read: Result<Option<Said>, Malformed>) {
        let said = match read {
            Ok(Some(said)) => said,
            Ok(None) => return,
            Err(Malformed) => {
                self.malformed = self.malformed.with(format);
                return;
            }
        };
        match (&mut self.context, said.context) {
            (Some(one), Some(other)) if one.trace.is_same(other.trace) => {
                self.formats = self.formats.with(format);
                if one.decision == Decision::Deferred {
                    (one.decision, self.decision) = (said.decision, said.decision);
                }
            }
            (Some(_), _) => {}
            // A decision without a place is that of the place that follows.
            (None, Some(context)) => {
                let decision = if self.formats.is_none() { said.decision } else { self.decision };
                self.context = Some(SpanContext { decision, ..context });
                (self.decision, self.formats) = (decision, self.formats.with(format));
            }
            (None, None) if self.formats.is_none() => {
                (self.decision, self.formats) = (said.decision, format);
            }
            (None, None) => self.formats = self.formats.with(format),
        }
    }
}

#[cfg(test)]
mod tests;
