//! `traceparent` of W3C's Trace Context (level 1 and 2): `VERSION-TRACE-PARENT-FLAGS`.

use super::context::{Decision, Malformed, Said, SpanContext, Value, hex, span_id, trace_id};

/// Where in which trace a request is.
pub const TRACEPARENT: &str = "traceparent";
/// What vendors add to it. It means nothing without one.
pub const TRACESTATE: &str = "tracestate";

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;
/// The flag of a trace whose id is random (level 2); it goes on as it came.
const RANDOM: u8 = 2;
/// Bytes of a `traceparent` of version 00; of later ones, of the part that is the same.
const BYTES: usize = 55;

pub(super) fn read(
    value: &mut impl FnMut(&'static str) -> Value,
) -> Result<Option<Said>, Malformed> {
    let Some(text) = value(TRACEPARENT)? else { return Ok(None) };
    context(&text).map(|context| Some(context.into()))
}

fn context(text: &str) -> Result<SpanContext, Malformed> {
    let version = hex(text.get(..2).ok_or(Malformed)?, true)?;
    let known = text.get(..BYTES).ok_or(Malformed)?;
    let rest = &text[BYTES..];
    // A later version may say more behind what this one says, and no version is ff.
    let may_end_so =
        if version == 0 { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
    if version == 0xff || !may_end_so {
        return Err(Malformed);
    }
    let mut parts = known.split('-').skip(1);
    let mut part = || parts.next().ok_or(Malformed);
    let (trace, span) = (trace_id(part()?, true)?, span_id(part()?, true)?);
    let flags = part()?;
    if trace.short || flags.len() != 2 || parts.next().is_some() {
        return Err(Malformed);
    }
    let flags = hex(flags, true)? as u8;
    let decision = if flags & SAMPLED != 0 { Decision::Record } else { Decision::Drop };
    Ok(SpanContext { trace, span, parent: None, decision, flags: flags & RANDOM })
}

/// As this version writes it, whatever the one that came.
pub(super) fn text(context: &SpanContext) -> String {
    let sampled = if context.decision.records() == Some(true) { SAMPLED } else { 0 };
    let trace = context.trace.bits;
    format!("00-{trace:032x}-{}-{:02x}", context.span, context.flags | sampled)
}
