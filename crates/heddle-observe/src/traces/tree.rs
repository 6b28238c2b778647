//! The spans of a trace in the order of who called whom, with times that one can draw: clocks of two machines may
//! contradict each other. Whatever senders claim – a parent that is not there, a circle of parents – every span is
//! told once, and it takes no more time than there are spans.

use std::collections::HashMap;

use heddle_wire::trace::received::{Received, ReceivedKind};

/// A span in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    /// Which of the spans.
    pub(super) span: usize,
    /// How many are above it.
    pub(super) depth: u64,
    /// When it began by the clocks of those above it, microseconds since 1970.
    pub(super) start: u64,
}

/// All spans, each behind its parent, and those of one parent by their begin.
pub(super) fn ordered(spans: &[Received]) -> Vec<Placed> {
    let parents = parents(spans);
    let mut below: Vec<Vec<usize>> = vec![Vec::new(); spans.len()];
    let mut tops = Vec::new();
    for (i, parent) in parents.iter().enumerate() {
        match parent {
            Some(parent) => below[*parent].push(i),
            None => tops.push(i),
        }
    }
    let mut placed = Vec::with_capacity(spans.len());
    let mut seen = vec![false; spans.len()];
    tops.sort_by_key(|top| spans[*top].start);
    for top in tops {
        walk(spans, &mut below, top, &mut seen, &mut placed);
    }
    // What is left is in circles: each is entered at its earliest.
    let mut left: Vec<usize> = (0..spans.len()).filter(|i| !seen[*i]).collect();
    left.sort_by_key(|one| spans[*one].start);
    for one in left {
        walk(spans, &mut below, one, &mut seen, &mut placed);
    }
    placed
}

/// A span and all below it that nobody has seen yet.
fn walk(
    spans: &[Received],
    below: &mut [Vec<usize>],
    top: usize,
    seen: &mut [bool],
    placed: &mut Vec<Placed>,
) {
    let mut next = vec![Placed { span: top, depth: 0, start: spans[top].start }];
    while let Some(one) = next.pop() {
        if std::mem::replace(&mut seen[one.span], true) {
            continue;
        }
        let moved = i128::from(one.start) - i128::from(spans[one.span].start);
        let mut children: Vec<_> = std::mem::take(&mut below[one.span])
            .into_iter()
            .map(|child| {
                let start = inside(&spans[one.span], one.start, &spans[child], moved);
                Placed { span: child, depth: one.depth + 1, start }
            })
            .collect();
        // The last one that is pushed comes first.
        children.sort_by_key(|child| std::cmp::Reverse((child.start, child.span)));
        next.extend(children);
        placed.push(one);
    }
}

/// When a span began, by the clock of the span above it, which has been moved itself.
fn inside(above: &Received, begun: u64, span: &Received, moved: i128) -> u64 {
    // The same machine's clock, most likely: it moves along.
    let own = u64::try_from(i128::from(span.start).saturating_add(moved)).unwrap_or(0);
    let crosses = above.service != span.service || above.workload != span.workload;
    let called = above.kind == ReceivedKind::Client && span.kind == ReceivedKind::Server;
    let ended = begun.saturating_add(above.duration);
    // Work goes on after a caller left, and never before it came; what a call led to cannot begin after its end.
    if own < begun || (crosses && called && own > ended) {
        // The way there and back is taken to be equally long.
        return begun.saturating_add(above.duration.saturating_sub(span.duration) / 2);
    }
    own
}

/// Of each span the one above it. Both ends of a call may have one id: then the server's is below the client's, and what
/// names it is below the server's.
fn parents(spans: &[Received]) -> Vec<Option<usize>> {
    let mut of: HashMap<u64, (Option<usize>, Option<usize>)> = HashMap::new();
    for (i, span) in spans.iter().enumerate() {
        let ends = of.entry(span.id).or_default();
        let end = if span.kind == ReceivedKind::Client { &mut ends.0 } else { &mut ends.1 };
        end.get_or_insert(i);
    }
    let above = |(i, span): (usize, &Received)| {
        let (client, other) = of.get(&span.id).copied().unwrap_or_default();
        if other == Some(i) && client.is_some() {
            return client;
        }
        let (client, other) = span.parent.and_then(|parent| of.get(&parent)).copied()?;
        other.or(client).filter(|parent| *parent != i)
    };
    spans.iter().enumerate().map(above).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(id: u64, parent: u64, kind: ReceivedKind, start: u64, duration: u64) -> Received {
        let parent = Some(parent).filter(|parent| *parent != 0);
        let service = format!("{kind:?}{id}");
        Received { trace: 1, id, parent, kind, start, duration, service, ..Received::default() }
    }

    fn told(spans: &[Received]) -> Vec<(u64, u64, u64)> {
        ordered(spans).iter().map(|one| (spans[one.span].id, one.depth, one.start)).collect()
    }

    const CLIENT: ReceivedKind = ReceivedKind::Client;
    const SERVER: ReceivedKind = ReceivedKind::Server;

    #[test]
    fn spans_stand_behind_their_parents_by_their_begin() {
        let spans = [
            span(4, 1, CLIENT, 140, 10),
            span(3, 2, SERVER, 110, 10),
            span(2, 1, CLIENT, 105, 20),
            span(1, 0, SERVER, 100, 100),
        ];
        assert_eq!(told(&spans), [(1, 0, 100), (2, 1, 105), (3, 2, 110), (4, 1, 140)]);
    }

    #[test]
    fn a_server_whose_clock_is_wrong_is_moved_into_its_call_with_all_below_it() {
        for wrong in [20, 5_000] {
            let spans = [
                span(1, 0, CLIENT, 1_000, 100),
                span(2, 1, SERVER, wrong, 60),
                span(3, 2, ReceivedKind::Internal, wrong + 10, 20),
            ];
            assert_eq!(told(&spans), [(1, 0, 1_000), (2, 1, 1_020), (3, 2, 1_030)]);
        }
    }

    #[test]
    fn work_that_goes_on_after_its_caller_left_stays_where_it_is() {
        let spans = [span(1, 0, SERVER, 100, 10), span(2, 1, ReceivedKind::Internal, 200, 50)];
        assert_eq!(told(&spans), [(1, 0, 100), (2, 1, 200)]);
    }

    #[test]
    fn both_ends_of_a_call_may_have_one_id() {
        let spans = [
            span(2, 1, SERVER, 110, 10),
            span(2, 1, CLIENT, 105, 20),
            span(3, 2, CLIENT, 112, 5),
            span(1, 0, SERVER, 100, 100),
        ];
        assert_eq!(told(&spans), [(1, 0, 100), (2, 1, 105), (2, 2, 110), (3, 3, 112)]);
    }

    #[test]
    fn circles_and_parents_that_are_not_there_hang_nobody() {
        let spans = [
            span(1, 2, SERVER, 100, 1),
            span(2, 1, SERVER, 90, 1),
            span(3, 99, SERVER, 80, 1),
            span(4, 4, SERVER, 70, 1),
        ];
        let told = told(&spans);
        let ids: Vec<_> = told.iter().map(|(id, ..)| *id).collect();
        assert_eq!(ids, [4, 3, 2, 1]);
    }

    proptest! {
        #[test]
        fn every_span_is_told_once_and_none_before_its_parent(
            sent in prop::collection::vec((1_u64..12, 0_u64..14, 0_u8..3, any::<u64>(), any::<u64>()), 0..40)
        ) {
            let kinds = [CLIENT, SERVER, ReceivedKind::Internal];
            let spans: Vec<_> = sent
                .iter()
                .map(|(id, parent, kind, start, duration)| {
                    span(*id, *parent, kinds[usize::from(*kind)], *start, *duration)
                })
                .collect();
            let placed = ordered(&spans);
            let mut told: Vec<_> = placed.iter().map(|one| one.span).collect();
            told.sort_unstable();
            prop_assert_eq!(told, (0..spans.len()).collect::<Vec<_>>());
            let mut way: Vec<u64> = Vec::new();
            for one in &placed {
                prop_assert!(one.depth as usize <= way.len());
                way.truncate(one.depth as usize);
                prop_assert!(way.last().is_none_or(|above| one.start >= *above));
                way.push(one.start);
            }
        }
    }
}
