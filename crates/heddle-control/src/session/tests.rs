//! A proxy's session: what is sent, in which order, and when it counts as acknowledged.

use super::*;

/// A state made by hand: resources by type and name with a number as content.
#[derive(Default)]
struct State {
    resources: BTreeMap<(Kind, String), u128>,
    backends: BTreeMap<String, Vec<String>>,
}

impl State {
    fn with(resources: &[(Kind, &str, u128)]) -> Self {
        let mut state = Self::default();
        resources.iter().for_each(|(kind, name, version)| state.set(*kind, name, *version));
        state
    }

    fn set(&mut self, kind: Kind, name: &str, version: u128) {
        self.resources.insert((kind, name.to_owned()), version);
    }

    fn route(&mut self, destination: &str, backends: &[&str]) {
        let names = backends.iter().map(|name| (*name).to_owned()).collect();
        self.backends.insert(destination.to_owned(), names);
    }
}

impl Current for State {
    fn resource(&mut self, kind: Kind, name: &str) -> Option<Encoded> {
        let version = *self.resources.get(&(kind, name.to_owned()))?;
        Some(Encoded { version, bytes: Arc::from(version.to_string().as_bytes()) })
    }

    fn backends(&mut self, destination: &str) -> Arc<[String]> {
        self.backends.get(destination).cloned().unwrap_or_default().into()
    }
}

fn subscribe(session: &mut Session, kind: Kind, names: &[&str]) {
    let subscribe = names.iter().map(|name| (*name).to_owned()).collect();
    session.hear(kind, Heard { subscribe, ..Heard::default() });
}

fn resume(session: &mut Session, kind: Kind, held: &[(&str, u128)]) {
    let heard = Heard {
        subscribe: held.iter().map(|(name, _)| (*name).to_owned()).collect(),
        held: held.iter().map(|(name, version)| ((*name).to_owned(), *version)).collect(),
        ..Heard::default()
    };
    session.hear(kind, heard);
}

fn ack(session: &mut Session, response: &Response) {
    assert!(session.hear(response.kind, Heard { nonce: Some(response.nonce), ..Heard::default() }));
}

fn refuse(session: &mut Session, response: &Response, why: &str) {
    let heard =
        Heard { nonce: Some(response.nonce), error: Some(why.to_owned()), ..Heard::default() };
    assert!(session.hear(response.kind, heard));
}

/// Responses as `Kind name=version … -removed`, `!` at the end of a group.
fn text(responses: &[Response]) -> Vec<String> {
    responses
        .iter()
        .map(|response| {
            let mut words = vec![format!("{:?}", response.kind)];
            words.extend(response.resources.iter().map(|(n, r)| format!("{n}={}", r.version)));
            words.extend(response.removed.iter().map(|name| format!("-{name}")));
            words.join(" ") + if response.generation_end { "!" } else { "" }
        })
        .collect()
}

fn state() -> State {
    let mut state = State::with(&[
        (Kind::Inbound, "me", 1),
        (Kind::Destination, "reviews", 1),
        (Kind::Endpoints, "reviews", 1),
        (Kind::Endpoints, "ratings", 1),
        (Kind::Address, "240.0.0.1", 1),
    ]);
    state.route("reviews", &["reviews"]);
    state
}

/// A session that subscribed to itself and to `reviews`, and holds it all.
fn settled(state: &mut State) -> Session {
    let mut session = Session::default();
    subscribe(&mut session, Kind::Inbound, &["me"]);
    subscribe(&mut session, Kind::Destination, &["reviews"]);
    for response in session.send(1, state) {
        ack(&mut session, &response);
    }
    assert_eq!(session.running(1), 1);
    session
}

#[test]
fn a_group_comes_in_the_order_of_need_and_its_last_response_is_marked() {
    let mut state = state();
    let mut session = Session::default();
    assert_eq!(session.running(7), 0, "nothing is known of it yet");
    subscribe(&mut session, Kind::Destination, &["reviews"]);
    subscribe(&mut session, Kind::Inbound, &["me"]);
    subscribe(&mut session, Kind::Address, &["240.0.0.1"]);
    let responses = session.send(7, &mut state);
    assert_eq!(
        text(&responses),
        ["Address 240.0.0.1=1", "Endpoints reviews=1", "Inbound me=1", "Destination reviews=1!"]
    );
    assert!(responses.iter().all(|response| response.generation == 7));
    assert!(session.send(7, &mut state).is_empty(), "nothing twice");
    ack(&mut session, &responses[0]);
    ack(&mut session, &responses[1]);
    assert_eq!(session.running(7), 0, "only the last response puts a group in force");
    ack(&mut session, &responses[3]);
    assert_eq!(session.running(7), 7);
    assert_eq!(
        session.running(9),
        9,
        "a generation without anything new for it is in force at once"
    );
}

#[test]
fn only_what_differs_is_sent() {
    let mut state = state();
    let mut session = settled(&mut state);
    assert!(!session.notice(&mut state));
    assert!(session.send(2, &mut state).is_empty());
    state.set(Kind::Endpoints, "reviews", 2);
    state.set(Kind::Endpoints, "unrelated", 2);
    assert!(session.notice(&mut state));
    assert_eq!(session.running(2), 1);
    assert_eq!(text(&session.send(2, &mut state)), ["Endpoints reviews=2!"]);
}

#[test]
fn endpoints_of_a_new_backend_come_before_the_rule_that_names_it() {
    let mut state = state();
    let mut session = settled(&mut state);
    state.set(Kind::Destination, "reviews", 2);
    state.route("reviews", &["reviews", "ratings", "empty"]);
    assert!(session.notice(&mut state));
    let responses = session.send(2, &mut state);
    assert_eq!(text(&responses), ["Endpoints ratings=1 -empty", "Destination reviews=2!"]);
    ack(&mut session, &responses[1]);
    state.set(Kind::Destination, "reviews", 3);
    state.route("reviews", &["reviews"]);
    assert!(session.notice(&mut state));
    let responses = session.send(3, &mut state);
    assert_eq!(
        text(&responses),
        ["Endpoints -ratings", "Destination reviews=3!"],
        "what no rule names goes with the rule; what never was there needs no second word"
    );
    ack(&mut session, &responses[1]);
    state.set(Kind::Endpoints, "ratings", 5);
    assert!(!session.notice(&mut state), "no longer its business");
    state.route("reviews", &["reviews", "ratings"]);
    state.set(Kind::Destination, "reviews", 2);
    session.notice(&mut state);
    assert_eq!(
        text(&session.send(4, &mut state)),
        ["Endpoints ratings=5", "Destination reviews=2!"]
    );
}

#[test]
fn an_absent_thing_is_told_once_and_turns_into_a_real_one() {
    let mut state = state();
    let mut session = settled(&mut state);
    subscribe(&mut session, Kind::Destination, &["later"]);
    let responses = session.send(1, &mut state);
    assert_eq!(text(&responses), ["Destination -later!"]);
    ack(&mut session, &responses[0]);
    assert!(!session.notice(&mut state));
    state.set(Kind::Destination, "later", 1);
    assert!(session.notice(&mut state));
    assert_eq!(text(&session.send(2, &mut state)), ["Destination later=1!"]);
    state.resources.remove(&(Kind::Destination, "later".to_owned()));
    assert!(session.notice(&mut state));
    assert_eq!(text(&session.send(3, &mut state)), ["Destination -later!"]);
}

#[test]
fn a_resumed_stream_is_sent_only_what_changed_meanwhile() {
    let mut state = state();
    let mut session = Session::default();
    resume(&mut session, Kind::Address, &[("240.0.0.1", 1), ("240.0.0.9", 4)]);
    // Endpoints are held, not asked for: the destination asks for them.
    let held = vec![("reviews".to_owned(), 1), ("ratings".to_owned(), 1), ("old".to_owned(), 1)];
    session.hear(Kind::Endpoints, Heard { held, ..Heard::default() });
    resume(&mut session, Kind::Inbound, &[("me", 1)]);
    resume(&mut session, Kind::Destination, &[("reviews", 1)]);
    assert_eq!(text(&session.send(5, &mut state)), ["Address -240.0.0.9!"]);
    let mut session = Session::default();
    resume(&mut session, Kind::Inbound, &[("me", 1)]);
    resume(&mut session, Kind::Destination, &[("reviews", 1)]);
    let held = vec![("reviews".to_owned(), 1)];
    session.hear(Kind::Endpoints, Heard { held, ..Heard::default() });
    assert!(session.send(5, &mut state).is_empty());
    assert_eq!(session.running(5), 5, "it holds everything there is");
}

#[test]
fn an_older_claim_does_not_overrule_what_was_sent() {
    let mut state = state();
    let mut session = settled(&mut state);
    let held = vec![("reviews".to_owned(), 77)];
    session.hear(Kind::Endpoints, Heard { held, ..Heard::default() });
    assert!(!session.notice(&mut state));
}

#[test]
fn asking_again_gets_an_answer_again_and_unsubscribing_ends_it() {
    let mut state = state();
    let mut session = settled(&mut state);
    subscribe(&mut session, Kind::Destination, &["reviews"]);
    let responses = session.send(1, &mut state);
    assert_eq!(
        text(&responses),
        ["Endpoints reviews=1", "Destination reviews=1!"],
        "it may have let go of the endpoints too"
    );
    ack(&mut session, &responses[1]);
    let unsubscribe = vec!["reviews".to_owned()];
    session.hear(Kind::Destination, Heard { unsubscribe, ..Heard::default() });
    assert!(session.send(1, &mut state).is_empty());
    state.set(Kind::Destination, "reviews", 2);
    state.set(Kind::Endpoints, "reviews", 2);
    assert!(!session.notice(&mut state));
}

#[test]
fn endpoints_another_destination_needs_are_sent_again_when_one_is_given_back() {
    let mut state = state();
    state.set(Kind::Destination, "other", 1);
    state.route("other", &["ratings"]);
    state.route("reviews", &["reviews", "ratings"]);
    let mut session = settled(&mut state);
    subscribe(&mut session, Kind::Destination, &["other"]);
    for response in session.send(1, &mut state) {
        ack(&mut session, &response);
    }
    let unsubscribe = vec!["other".to_owned()];
    session.hear(Kind::Destination, Heard { unsubscribe, ..Heard::default() });
    assert_eq!(text(&session.send(1, &mut state)), ["Endpoints ratings=1!"]);
}

#[test]
fn a_slow_proxy_is_sent_the_newest_state_only() {
    let mut state = state();
    let mut session = settled(&mut state);
    for version in 2..50 {
        state.set(Kind::Destination, "reviews", version);
        assert!(session.notice(&mut state));
    }
    assert_eq!(text(&session.send(49, &mut state)), ["Destination reviews=49!"]);
    for version in 50..50 + 2 * GROUPS_IN_FLIGHT_MAX as u64 {
        state.set(Kind::Destination, "reviews", version.into());
        session.notice(&mut state);
        session.send(version, &mut state);
    }
    assert_eq!(session.groups.len(), GROUPS_IN_FLIGHT_MAX);
    assert!(!session.wants_to_send(), "no room until it acknowledges");
}

#[test]
fn a_change_taken_back_before_it_was_sent_leaves_nothing_pending() {
    let mut state = state();
    let mut session = settled(&mut state);
    state.set(Kind::Destination, "reviews", 2);
    assert!(session.notice(&mut state));
    assert_eq!(session.running(2), 1);
    state.set(Kind::Destination, "reviews", 1);
    session.notice(&mut state);
    assert!(session.send(3, &mut state).is_empty());
    assert_eq!(session.running(3), 3);
}

#[test]
fn a_refused_version_is_not_sent_again_but_its_companions_are() {
    let mut state = state();
    let mut session = settled(&mut state);
    state.set(Kind::Endpoints, "reviews", 2);
    state.set(Kind::Destination, "reviews", 2);
    assert!(session.notice(&mut state));
    let responses = session.send(2, &mut state);
    ack(&mut session, &responses[0]);
    refuse(&mut session, &responses[1], "bad regex");
    assert_eq!(session.nack(), Some("bad regex"));
    let responses = session.send(2, &mut state);
    assert_eq!(text(&responses), ["Endpoints reviews=2!"]);
    ack(&mut session, &responses[0]);
    assert_eq!(session.running(2), 1, "it does not run what it refused");
    assert!(session.is_refusing());
    assert!(!session.notice(&mut state) && session.send(3, &mut state).is_empty());
    state.set(Kind::Destination, "reviews", 3);
    assert!(session.notice(&mut state) && !session.is_refusing());
    let responses = session.send(3, &mut state);
    assert_eq!(text(&responses), ["Destination reviews=3!"]);
    ack(&mut session, &responses[0]);
    assert_eq!((session.running(3), session.nack()), (3, None));
}

#[test]
fn endpoints_a_resumed_proxy_claims_without_need_come_again_when_a_rule_names_them() {
    let mut state = state();
    let mut session = Session::default();
    let held = vec![("reviews".to_owned(), 1), ("ratings".to_owned(), 1)];
    session.hear(Kind::Endpoints, Heard { held, ..Heard::default() });
    resume(&mut session, Kind::Inbound, &[("me", 1)]);
    resume(&mut session, Kind::Destination, &[("reviews", 1)]);
    assert!(session.send(1, &mut state).is_empty());
    state.set(Kind::Destination, "reviews", 2);
    state.route("reviews", &["reviews", "ratings"]);
    assert!(session.notice(&mut state));
    assert_eq!(
        text(&session.send(2, &mut state)),
        ["Endpoints ratings=1", "Destination reviews=2!"]
    );
}

#[test]
fn endpoints_claimed_after_their_rule_has_changed_come_with_the_next_rule() {
    let mut state = state();
    state.set(Kind::Destination, "reviews", 2);
    let mut session = Session::default();
    resume(&mut session, Kind::Inbound, &[("me", 1)]);
    resume(&mut session, Kind::Destination, &[("reviews", 1)]);
    session.send(1, &mut state);
    let held = vec![("ratings".to_owned(), 1)];
    session.hear(Kind::Endpoints, Heard { held, ..Heard::default() });
    state.set(Kind::Destination, "reviews", 3);
    state.route("reviews", &["reviews", "ratings"]);
    session.notice(&mut state);
    assert_eq!(
        text(&session.send(2, &mut state)),
        ["Endpoints ratings=1", "Destination reviews=3!"]
    );
}

#[test]
fn endpoints_only_a_refused_rule_needs_come_again_with_the_corrected_one() {
    let mut state = state();
    let mut session = settled(&mut state);
    state.set(Kind::Destination, "reviews", 2);
    state.route("reviews", &["reviews", "ratings"]);
    session.notice(&mut state);
    let responses = session.send(2, &mut state);
    ack(&mut session, &responses[0]);
    refuse(&mut session, &responses[1], "bad regex");
    assert!(session.send(2, &mut state).is_empty(), "the proxy would drop them at once");
    state.set(Kind::Endpoints, "ratings", 2);
    assert!(!session.notice(&mut state) && session.is_refusing());
    state.set(Kind::Destination, "reviews", 3);
    assert!(session.notice(&mut state));
    let responses = session.send(3, &mut state);
    assert_eq!(text(&responses), ["Endpoints ratings=2", "Destination reviews=3!"]);
    ack(&mut session, &responses[1]);
    assert_eq!((session.running(3), session.nack()), (3, None));
}

#[test]
fn endpoints_of_the_rule_in_force_stay_up_to_date_while_its_successor_is_refused() {
    let mut state = state();
    state.route("reviews", &["reviews", "ratings"]);
    let mut session = settled(&mut state);
    state.set(Kind::Destination, "reviews", 2);
    state.route("reviews", &["reviews"]);
    session.notice(&mut state);
    let responses = session.send(2, &mut state);
    assert_eq!(text(&responses), ["Endpoints -ratings", "Destination reviews=2!"]);
    ack(&mut session, &responses[0]);
    refuse(&mut session, &responses[1], "no");
    let responses = session.send(2, &mut state);
    assert_eq!(text(&responses), ["Endpoints ratings=1!"], "the rule before still calls it");
    ack(&mut session, &responses[0]);
    state.set(Kind::Endpoints, "ratings", 2);
    assert!(session.notice(&mut state));
}

#[test]
fn a_refusal_overtaken_by_a_newer_accepted_version_leaves_nothing_behind() {
    let mut state = state();
    let mut session = settled(&mut state);
    state.set(Kind::Destination, "reviews", 2);
    session.notice(&mut state);
    let second = session.send(2, &mut state);
    state.set(Kind::Destination, "reviews", 3);
    session.notice(&mut state);
    let third = session.send(3, &mut state);
    refuse(&mut session, &second[0], "no");
    ack(&mut session, &third[0]);
    assert_eq!((session.running(3), session.nack()), (3, None));
    assert!(!session.is_refusing());
}

#[test]
fn two_refusals_in_a_row_leave_what_was_in_force_before_both() {
    let mut state = state();
    let mut session = settled(&mut state);
    state.set(Kind::Destination, "reviews", 2);
    session.notice(&mut state);
    let second = session.send(2, &mut state);
    state.set(Kind::Destination, "reviews", 3);
    session.notice(&mut state);
    let third = session.send(3, &mut state);
    refuse(&mut session, &second[0], "no");
    refuse(&mut session, &third[0], "no");
    state.set(Kind::Destination, "reviews", 2);
    session.notice(&mut state);
    assert_eq!(text(&session.send(4, &mut state)), ["Destination reviews=2!"], "it never had it");
}

#[test]
fn going_back_to_what_it_holds_ends_a_refusal() {
    let mut state = state();
    let mut session = settled(&mut state);
    state.set(Kind::Destination, "reviews", 2);
    session.notice(&mut state);
    let responses = session.send(2, &mut state);
    refuse(&mut session, &responses[0], "no");
    state.set(Kind::Destination, "reviews", 1);
    assert!(!session.notice(&mut state));
    assert_eq!((session.running(3), session.nack()), (3, None));
}

#[test]
fn foreign_nonces_endless_texts_and_too_many_names_do_no_harm() {
    let mut state = state();
    let mut session = settled(&mut state);
    assert!(!session.hear(Kind::Mesh, Heard { nonce: Some(4711), ..Heard::default() }));
    state.set(Kind::Inbound, "me", 2);
    session.notice(&mut state);
    let responses = session.send(2, &mut state);
    refuse(&mut session, &responses[0], &"ä".repeat(NACK_BYTES_MAX));
    assert!(session.nack().unwrap().len() <= NACK_BYTES_MAX);
    assert!(!session.take_truncated());
    subscribe(&mut session, Kind::Name, &["x".repeat(RESOURCE_NAME_BYTES_MAX + 1).as_str()]);
    assert!(session.take_truncated());
    let many: Vec<String> = (0..SUBSCRIPTIONS_MAX + 5).map(|n| n.to_string()).collect();
    session.hear(Kind::Name, Heard { subscribe: many, ..Heard::default() });
    assert_eq!(session.subscriptions(), SUBSCRIPTIONS_MAX);
    assert!(session.take_truncated() && !session.take_truncated());
    let responses = session.send(3, &mut state);
    assert!(responses.iter().all(|r| r.removed.len() <= RESOURCES_PER_RESPONSE_MAX));
    assert_eq!(responses.iter().filter(|response| response.generation_end).count(), 1);
}

#[test]
fn a_change_concerns_those_who_asked_for_what_it_touched() {
    let mut state = state();
    let session = settled(&mut state);
    let me = WorkloadId("me".to_owned());
    let is_of = |touched: &Touched| Concern::of(touched).is_of(&me, &session);
    let service = |name: &str| heddle_model::ServiceName::new(name, "default").unwrap();
    let other = Touched { endpoints: [service("other")].into(), ..Touched::default() };
    assert!(!is_of(&other));
    assert!(is_of(&Touched::all()));
    assert!(is_of(&Touched { workloads: [me.clone()].into(), ..Touched::default() }));
    let elsewhere = Touched { addresses: [[10, 0, 0, 1].into()].into(), ..Touched::default() };
    assert!(!is_of(&elsewhere));
}
