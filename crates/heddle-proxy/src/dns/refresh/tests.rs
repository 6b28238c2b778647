//! When names are asked about again, and what stays of what was said. The clock stands: it moves on only
//! when every task waits for it.

use std::cell::{Cell, RefCell};

use heddle_runtime::task::run_local;
use hickory_proto::{
    op::OpCode,
    rr::{
        Record,
        rdata::{A, CNAME},
    },
};

use super::*;
use crate::{
    limits::LOOKED_UP_KEPT,
    resolved::{Resolved, Use},
};

const HOST: &str = "db.example.com";
const SECOND: Duration = Duration::from_secs(1);

/// What a resolver says, one after the other; the last thing for ever.
struct Script {
    said: RefCell<Vec<Result<Answer, String>>>,
    asked: Cell<usize>,
    /// How long it takes to say the first.
    delay: Duration,
}

fn good(lasts: &[u8], ttl: u64) -> Result<Answer, String> {
    let addresses = lasts.iter().map(|last| IpAddr::from([192, 0, 2, *last])).collect();
    Ok(Answer { addresses, ttl: Duration::from_secs(ttl) })
}

/// Runs `test` while `HOST` is kept up to date.
fn kept<F: Future<Output = ()> + 'static>(
    (used, delay): (Use, Duration),
    said: Vec<Result<Answer, String>>,
    test: impl FnOnce(ResolvedNames, Rc<Script>) -> F,
) {
    run_local(async {
        tokio::time::pause();
        let script = Rc::new(Script { said: RefCell::new(said), asked: Cell::new(0), delay });
        let names = ResolvedNames::default();
        names.want(BTreeMap::from([(HOST.into(), used)]));
        let answers = Rc::clone(&script);
        let keeping = keep_all(names.clone(), move |_| {
            let script = Rc::clone(&answers);
            async move {
                let first = script.asked.replace(script.asked.get() + 1) == 0;
                if first {
                    clock::sleep(script.delay).await;
                }
                let mut said = script.said.borrow_mut();
                if said.len() > 1 { said.remove(0) } else { said[0].clone() }
            }
        });
        drop(spawn_contained("names", keeping));
        test(names, script).await;
    })
    .unwrap();
}

fn lasts(names: &ResolvedNames) -> Vec<u8> {
    match names.get(HOST) {
        Resolved::Addresses(all) => all
            .iter()
            .map(|ip| match ip {
                IpAddr::V4(ip) => ip.octets()[3],
                IpAddr::V6(_) => 0,
            })
            .collect(),
        Resolved::Pending | Resolved::Never(_) => Vec::new(),
    }
}

#[test]
fn an_answer_holds_for_its_time_and_is_asked_for_again_then() {
    let said = vec![good(&[1], 30), good(&[1, 2], 30)];
    kept((Use::All, Duration::ZERO), said, |names, script| async move {
        assert_eq!(names.get(HOST), Resolved::Pending);
        names.changed().await;
        assert_eq!((lasts(&names), script.asked.get()), (vec![1], 1));
        clock::sleep(SECOND * 29).await;
        assert_eq!(script.asked.get(), 1);
        names.changed().await;
        assert_eq!((lasts(&names), script.asked.get()), (vec![1, 2], 2));
    });
}

#[test]
fn no_answer_is_asked_for_more_than_once_a_second() {
    let said = vec![good(&[1], 0)];
    kept((Use::All, Duration::ZERO), said, |names, script| async move {
        names.changed().await;
        clock::sleep(SECOND * 10 + SECOND / 2).await;
        assert_eq!(script.asked.get(), 11);
    });
}

#[test]
fn what_was_good_stays_while_nothing_good_comes() {
    let said = vec![good(&[1, 2], 1), good(&[], 300), Err("ServFail".to_owned()), good(&[3], 300)];
    kept((Use::All, Duration::ZERO), said, |names, script| async move {
        names.changed().await;
        // After 1 s an empty answer, 1 s later a failure, 2 s after that a good one.
        for (seconds, asked) in [(1, 2), (1, 3)] {
            clock::sleep(SECOND * seconds + SECOND / 100).await;
            assert_eq!((lasts(&names), script.asked.get()), (vec![1, 2], asked));
        }
        names.changed().await;
        assert_eq!((lasts(&names), script.asked.get()), (vec![3], 4));
    });
}

#[test]
fn an_empty_answer_is_none_and_what_never_was_good_says_why() {
    let said = vec![good(&[], 300), Err("NXDomain".to_owned()), good(&[7], 300)];
    kept((Use::All, Duration::ZERO), said, |names, _| async move {
        names.changed().await;
        assert_eq!(names.get(HOST), Resolved::Never("it has no address".into()));
        names.changed().await;
        assert_eq!(names.get(HOST), Resolved::Never("NXDomain".into()));
        names.changed().await;
        assert_eq!(lasts(&names), [7]);
    });
}

#[test]
fn who_waits_for_a_first_answer_is_told_before_it_is_given_up() {
    let said = vec![good(&[7], 300)];
    kept((Use::All, SECOND * 4), said, |names, script| async move {
        let begun = clock::now();
        names.changed().await;
        // The clock of the runtime has steps of a millisecond.
        let waited = clock::now() - begun;
        assert!((RESOLVE_FIRST_WAIT..RESOLVE_FIRST_WAIT + SECOND / 100).contains(&waited));
        assert!(matches!(names.get(HOST), Resolved::Never(said) if said.contains("1500 ms")));
        names.changed().await;
        assert_eq!((lasts(&names), script.asked.get()), (vec![7], 1), "the same question");
    });
}

#[test]
fn failures_are_asked_about_less_and_less_often() {
    let said = vec![Err("ServFail".to_owned())];
    kept((Use::All, Duration::ZERO), said, |names, script| async move {
        names.changed().await;
        // Pauses of 1, 2, 4, 8, 16 and from then on 30 s.
        clock::sleep(SECOND * (31 + 30 * 10) + SECOND / 2).await;
        assert_eq!(script.asked.get(), 6 + 10);
    });
}

#[test]
fn a_turned_order_is_news_only_where_the_first_counts() {
    for (used, news) in [(Use::All, false), (Use::First, true)] {
        let said = vec![good(&[1, 2], 5), good(&[2, 1], 500)];
        kept((used, Duration::ZERO), said, move |names, _| async move {
            names.changed().await;
            let told = clock::within(SECOND * 60, names.changed()).await;
            assert_eq!(told.is_some(), news, "{used:?}");
            assert_eq!(lasts(&names)[0], if news { 2 } else { 1 });
        });
    }
}

#[test]
fn what_nobody_names_any_more_is_not_asked_about() {
    let said = vec![good(&[1], 1)];
    kept((Use::All, Duration::ZERO), said, |names, script| async move {
        names.changed().await;
        names.want(BTreeMap::new());
        clock::sleep(SECOND * 60).await;
        assert_eq!((names.get(HOST), script.asked.get()), (Resolved::Pending, 1));
        names.want(BTreeMap::from([(HOST.into(), Use::All)]));
        names.changed().await;
        assert_eq!((lasts(&names), script.asked.get()), (vec![1], 2));
    });
}

#[test]
fn a_reply_holds_as_long_as_the_shortest_part_of_the_way_to_its_addresses() {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let mut message = Message::response(1, OpCode::Query);
    let alias = RData::CNAME(CNAME(name("real.example.com.")));
    message.add_answers([
        Record::from_rdata(name("db.example.com."), 20, alias),
        Record::from_rdata(
            name("real.example.com."),
            300,
            RData::A(A(Ipv4Addr::new(192, 0, 2, 1))),
        ),
        Record::from_rdata(name("real.example.com."), 300, RData::A(A(Ipv4Addr::UNSPECIFIED))),
    ]);
    assert_eq!(read(&message.to_vec().unwrap()), good(&[1], 20));
    let refused = Message::error_msg(1, OpCode::Query, ResponseCode::NXDomain).to_vec().unwrap();
    assert!(read(&refused).unwrap_err().starts_with("NXDomain"));
    assert!(read(b"no message").is_err());
    let asked = Message::from_vec(&query("db.example.com", RecordType::AAAA).unwrap()).unwrap();
    assert!(asked.metadata.recursion_desired && asked.queries.len() == 1);
    assert_eq!(query(&"x".repeat(300), RecordType::A), None);
}

#[test]
fn a_host_that_calls_name_is_asked_about_while_they_do_and_who_waits_is_told() {
    run_local(async {
        tokio::time::pause();
        let (names, asked) = (ResolvedNames::default(), Rc::new(Cell::new(0)));
        let counted = Rc::clone(&asked);
        let keeping = keep_all(names.clone(), move |host| {
            counted.set(counted.get() + 1);
            async move {
                clock::sleep(SECOND).await;
                match &*host {
                    HOST => good(&[3, 2], 60),
                    _ => Err("NXDomain: there is no such name".to_owned()),
                }
            }
        });
        drop(spawn_contained("names", keeping));
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let known = Resolved::Addresses(vec![address(3), address(2)]);
        assert_eq!(names.look_up(HOST).await, known);
        assert_eq!((names.look_up(HOST).await, asked.get()), (known, 1), "known already");
        let Resolved::Never(said) = names.look_up("no.example.com").await else { panic!() };
        assert!(said.contains("no such name"), "{said}");
        clock::sleep(LOOKED_UP_KEPT * 2).await;
        let before = asked.get();
        clock::sleep(LOOKED_UP_KEPT).await;
        assert_eq!(asked.get(), before, "nobody has named it for long");
        assert!(!names.is_wanted(HOST));
    })
    .unwrap();
}
