//! What came is what goes on, but for the span.

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const PARENT: &str = "05e3ac9a4f6e3b90";

fn read(fields: &[(&str, &str)]) -> Incoming {
    Incoming::read(|name, take| {
        fields.iter().filter(|(one, _)| *one == name).for_each(|(_, value)| take(value));
    })
}

fn write(context: &SpanContext, formats: Formats) -> Vec<(&'static str, String)> {
    let mut fields = Vec::new();
    context.write(formats, |name, value| fields.push((name, value)));
    fields
}

#[test]
fn a_traceparent_is_read_as_w3c_has_it() {
    let text = |flags: &str| format!("00-{TRACE}-{SPAN}-{flags}");
    for (flags, decision) in [
        ("01", Decision::Record),
        ("00", Decision::Drop),
        ("03", Decision::Record),
        ("02", Decision::Drop),
    ] {
        let read = read(&[(TRACEPARENT, &text(flags))]);
        let context = read.context.unwrap();
        assert_eq!((context.trace.to_string().as_str(), context.decision), (TRACE, decision));
        assert_eq!((read.formats, read.malformed), (Formats::W3C, Formats::default()));
        assert_eq!(write(&context, Formats::W3C), [(TRACEPARENT, text(flags))]);
    }
    let later = format!("cc-{TRACE}-{SPAN}-01-what-comes");
    let context = read(&[(TRACEPARENT, &later)]).context.unwrap();
    assert_eq!(write(&context, Formats::W3C), [(TRACEPARENT, text("01"))]);
}

#[test]
fn a_malformed_traceparent_is_told_and_counts_as_none() {
    let zeros = "0".repeat(32);
    for text in [
        String::new(),
        format!("00-{TRACE}-{SPAN}"),
        format!("00-{TRACE}-{SPAN}-01-more"),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("cc-{TRACE}-{SPAN}-01.more"),
        format!("00-{zeros}-{SPAN}-01"),
        format!("00-{TRACE}-{}-01", &zeros[..16]),
        format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
        format!("00-{TRACE}{SPAN}--01"),
        format!("00-{TRACE}-{SPAN}-0g"),
        format!("00-{TRACE}-{SPAN}-+1"),
        format!("00-{}é-{SPAN}-01", &TRACE[2..]),
    ] {
        let read = read(&[(TRACEPARENT, &text)]);
        assert_eq!((read.context, read.malformed), (None, Formats::W3C), "{text}");
    }
    let text = format!("00-{TRACE}-{SPAN}-01");
    let twice = read(&[(TRACEPARENT, &text), (TRACEPARENT, &text)]);
    assert_eq!((twice.context, twice.malformed), (None, Formats::W3C));
}

#[test]
fn b3_in_one_field_is_all_or_only_a_decision() {
    for (text, decision) in [
        (format!("{TRACE}-{SPAN}"), Decision::Deferred),
        (format!("{TRACE}-{SPAN}-1"), Decision::Record),
        (format!("{TRACE}-{SPAN}-0"), Decision::Drop),
        (format!("{TRACE}-{SPAN}-d"), Decision::Debug),
        (format!("{TRACE}-{SPAN}-1-{PARENT}"), Decision::Record),
        (format!("{}-{SPAN}-1", &TRACE[16..]), Decision::Record),
    ] {
        let read = read(&[(B3, &text)]);
        let context = read.context.unwrap();
        assert_eq!((context.decision, read.decision), (decision, decision), "{text}");
        assert_eq!(write(&context, Formats::B3), [(B3, text)]);
    }
    for (text, decision) in [("0", Decision::Drop), ("1", Decision::Record), ("d", Decision::Debug)]
    {
        let read = read(&[(B3, text)]);
        assert_eq!((read.context, read.decision, read.formats), (None, decision, Formats::B3));
    }
    for text in
        ["", "2", "true", &format!("{TRACE}-{SPAN}-2"), &format!("{TRACE}-{SPAN}-1-"), TRACE]
    {
        let read = read(&[(B3, text)]);
        assert_eq!((read.context, read.malformed), (None, Formats::B3), "{text}");
    }
}

#[test]
fn b3_in_several_fields_goes_on_in_several_fields() {
    let all = [(TRACE_ID, TRACE), (SPAN_ID, SPAN), (PARENT_SPAN_ID, PARENT), (SAMPLED, "1")];
    let context = read(&all).context.unwrap();
    assert_eq!(
        write(&context, Formats::B3_MULTI),
        all.map(|(name, value)| (name, value.to_owned()))
    );
    let debug = read(&[(TRACE_ID, TRACE), (SPAN_ID, SPAN), (FLAGS, "1")]).context.unwrap();
    let fields = [(TRACE_ID, TRACE), (SPAN_ID, SPAN), (FLAGS, "1")];
    assert_eq!(
        write(&debug, Formats::B3_MULTI),
        fields.map(|(name, value)| (name, value.to_owned()))
    );
    let words = read(&[(SAMPLED, "false")]);
    assert_eq!((words.context, words.decision), (None, Decision::Drop));
    for fields in [
        &[(TRACE_ID, TRACE)][..],
        &[(TRACE_ID, "12"), (SPAN_ID, SPAN)],
        &[(TRACE_ID, TRACE), (SPAN_ID, "12")],
        &[(TRACE_ID, TRACE), (SPAN_ID, SPAN), (SAMPLED, "maybe")],
        &[(SAMPLED, "d")],
    ] {
        let read = read(fields);
        assert_eq!((read.context, read.malformed), (None, Formats::B3_MULTI), "{fields:?}");
    }
    assert_eq!(read(&[(SPAN_ID, SPAN)]), Incoming::default(), "a span of no trace is nothing");
}

#[test]
fn of_several_contexts_those_of_one_trace_go_on_and_others_stay() {
    let traceparent = format!("00-{TRACE}-{SPAN}-01");
    let short = format!("{}-{PARENT}-0", &TRACE[16..]);
    let same = read(&[(TRACEPARENT, &traceparent), (B3, &short)]);
    assert_eq!(same.formats, Formats::W3C.with(Formats::B3));
    assert_eq!(same.decision, Decision::Record, "the first one's");
    let other = format!("{}-{PARENT}-0", TRACE.replace('4', "5"));
    let two = read(&[(TRACEPARENT, &traceparent), (B3, &other)]);
    assert_eq!((two.formats, two.context.unwrap().span.to_string().as_str()), (Formats::W3C, SPAN));
    let broken = read(&[(TRACEPARENT, "00-1-2-3"), (B3, &short)]);
    assert_eq!((broken.formats, broken.malformed), (Formats::B3, Formats::W3C));
    let undecided = read(&[
        (B3, &format!("{TRACE}-{SPAN}")),
        (TRACE_ID, TRACE),
        (SPAN_ID, SPAN),
        (SAMPLED, "1"),
    ]);
    assert_eq!(undecided.decision, Decision::Record, "what one leaves open another may say");
    let alone = read(&[(B3, "0"), (TRACE_ID, TRACE), (SPAN_ID, SPAN)]);
    assert_eq!(alone.context.unwrap().decision, Decision::Drop, "a decision before its trace");
}

#[test]
fn a_child_is_of_the_same_trace_and_below_its_parent() {
    let parent = read(&[(B3, &format!("{}-{SPAN}", &TRACE[16..]))]).context.unwrap();
    let child = parent.child(SpanId::of(0x17), Decision::Record);
    let trace = &TRACE[16..];
    assert_eq!(
        write(&child, Formats::B3.with(Formats::W3C)),
        [
            (TRACEPARENT, format!("00-0000000000000000{trace}-0000000000000017-01")),
            (B3, format!("{trace}-0000000000000017-1-{SPAN}")),
        ]
    );
}
