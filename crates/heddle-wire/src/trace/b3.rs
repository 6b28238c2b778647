//! B3, Zipkin's propagation: one field (`b3: TRACE-SPAN-SAMPLED-PARENT`, or only `b3: SAMPLED`) or several
//! (`x-b3-traceid` …). A decision may stand alone, before there is a trace.

use super::context::{Decision, Malformed, Said, SpanContext, Value, span_id, trace_id};

/// All in one field.
pub const B3: &str = "b3";
/// The value of [`B3`] by which nothing is recorded.
pub const NOT_RECORDED: &str = "0";
/// Which trace: 16 or 32 digits.
pub const TRACE_ID: &str = "x-b3-traceid";
/// Which span.
pub const SPAN_ID: &str = "x-b3-spanid";
/// That span's parent.
pub const PARENT_SPAN_ID: &str = "x-b3-parentspanid";
/// `1` or `0`.
pub const SAMPLED: &str = "x-b3-sampled";
/// `1`: recorded, whatever a sampler says.
pub const FLAGS: &str = "x-b3-flags";

pub(super) fn read_single(
    value: &mut impl FnMut(&'static str) -> Value,
) -> Result<Option<Said>, Malformed> {
    let Some(text) = value(B3)? else { return Ok(None) };
    if let Ok(decision) = decision(&text) {
        return Ok(Some(Said { context: None, decision }));
    }
    let mut parts = text.split('-');
    let trace = trace_id(parts.next().ok_or(Malformed)?, false)?;
    let span = span_id(parts.next().ok_or(Malformed)?, false)?;
    let decision = parts.next().map_or(Ok(Decision::Deferred), decision)?;
    let parent = parts.next().map(|parent| span_id(parent, false)).transpose()?;
    if parts.next().is_some() {
        return Err(Malformed);
    }
    Ok(Some(SpanContext { trace, span, parent, decision, flags: 0 }.into()))
}

pub(super) fn read_multi(
    value: &mut impl FnMut(&'static str) -> Value,
) -> Result<Option<Said>, Malformed> {
    let (trace, sampled, flags) = (value(TRACE_ID)?, value(SAMPLED)?, value(FLAGS)?);
    let decision = match (flags.as_deref(), sampled.as_deref()) {
        (Some("1"), _) => Decision::Debug,
        // Other flags were never given a meaning.
        (_, Some(sampled)) => legacy_decision(sampled)?,
        (_, None) => Decision::Deferred,
    };
    let Some(trace) = trace else {
        let said = Said { context: None, decision };
        return Ok((decision != Decision::Deferred).then_some(said));
    };
    let (trace, span) = (trace_id(&trace, false)?, value(SPAN_ID)?.ok_or(Malformed)?);
    let span = span_id(&span, false)?;
    // Nobody needs to know it, so that a bad one costs nothing.
    let parent = value(PARENT_SPAN_ID)?.and_then(|parent| span_id(&parent, false).ok());
    Ok(Some(SpanContext { trace, span, parent, decision, flags: 0 }.into()))
}

fn decision(text: &str) -> Result<Decision, Malformed> {
    match text {
        "0" => Ok(Decision::Drop),
        "1" => Ok(Decision::Record),
        "d" => Ok(Decision::Debug),
        _ => Err(Malformed),
    }
}

/// Early senders wrote words.
fn legacy_decision(text: &str) -> Result<Decision, Malformed> {
    match text {
        "true" => Ok(Decision::Record),
        "false" => Ok(Decision::Drop),
        "d" => Err(Malformed),
        text => decision(text),
    }
}

pub(super) fn text(context: &SpanContext) -> String {
    let mut text = format!("{}-{}", context.trace, context.span);
    match context.decision {
        Decision::Deferred => return text,
        Decision::Drop => text.push_str("-0"),
        Decision::Record => text.push_str("-1"),
        Decision::Debug => text.push_str("-d"),
    }
    if let Some(parent) = context.parent {
        text.push('-');
        text.push_str(&parent.to_string());
    }
    text
}

pub(super) fn write(context: &SpanContext, mut put: impl FnMut(&'static str, String)) {
    put(TRACE_ID, context.trace.to_string());
    put(SPAN_ID, context.span.to_string());
    if let Some(parent) = context.parent {
        put(PARENT_SPAN_ID, parent.to_string());
    }
    match context.decision {
        Decision::Deferred => {}
        Decision::Drop => put(SAMPLED, "0".to_owned()),
        Decision::Record => put(SAMPLED, "1".to_owned()),
        // A sampled flag beside it says nothing more, and is not sent.
        Decision::Debug => put(FLAGS, "1".to_owned()),
    }
}
