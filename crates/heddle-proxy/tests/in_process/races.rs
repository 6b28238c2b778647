//! The keep-alive race: a server closes an idle connection while the next request is on its way to it.

use std::{cell::RefCell, rc::Rc, time::Duration};

use heddle_runtime::clock;

use crate::mesh::{End, GET, Mesh, OK, POST, with_standing_clock};

/// Which connection a request came on, and its method.
type Seen = Rc<RefCell<Vec<(usize, String)>>>;

/// Each connection answers one request and then ends as `ends` says when the next one comes.
fn racing(ends: fn(End)) -> (Mesh, Seen) {
    let seen = Seen::default();
    let (log, connections) = (Rc::clone(&seen), Rc::new(RefCell::new(0)));
    let mesh = Mesh::new(move |mut end: End| {
        let log = Rc::clone(&log);
        let number = {
            let mut connections = connections.borrow_mut();
            *connections += 1;
            *connections
        };
        async move {
            let note = |head: &str| {
                let method = head.split(' ').next().unwrap().to_owned();
                log.borrow_mut().push((number, method));
            };
            let (head, _) = end.message().await.expect("a request");
            note(&head);
            end.send(OK).await;
            if let Some((head, _)) = end.message().await {
                note(&head);
                ends(end);
            }
        }
    });
    (mesh, seen)
}

fn methods(seen: &Seen) -> Vec<(usize, String)> {
    seen.borrow().clone()
}

#[test]
fn a_get_that_met_a_closing_server_is_sent_again_on_a_new_connection() {
    for ends in [drop::<End>, |end: End| end.transport.reset()] {
        with_standing_clock(|| async {
            let (mesh, seen) = racing(ends);
            let mut end = mesh.call();
            end.ask(GET).await;
            let (head, body) = end.ask(GET).await;
            assert!(head.starts_with("HTTP/1.1 200 ") && body == "ok", "{head}");
            let expected = [(1, "GET"), (1, "GET"), (2, "GET")];
            assert_eq!(methods(&seen), expected.map(|(n, method)| (n, method.to_owned())));
            let server = &mesh.servers[0];
            assert_eq!(server.sum("heddle_retries_total", &["reason=\"reuse-race\""]), 1.0);
            assert_eq!(server.requests(&["response_code=\"200\""]), 2.0, "two calls, both good");
            assert_eq!(mesh.client.requests(&["response_code=\"200\""]), 2.0);
        });
    }
}

#[test]
fn a_post_that_met_a_closing_server_is_told_and_not_sent_again() {
    with_standing_clock(|| async {
        let (mesh, seen) = racing(drop);
        let mut end = mesh.call();
        end.ask(GET).await;
        let (head, body) = end.ask(POST).await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert!(head.contains("upstream-reset; hop=inbound@reviews-20"), "{head}");
        assert!(body.contains("may not be sent twice"), "{body}");
        assert_eq!(methods(&seen), [(1, "GET".to_owned()), (1, "POST".to_owned())]);
    });
}

#[test]
fn a_post_takes_no_connection_that_has_idled_for_a_second() {
    with_standing_clock(|| async {
        let (mesh, seen) = racing(drop);
        let mut end = mesh.call();
        end.ask(GET).await;
        clock::sleep(Duration::from_secs(1)).await;
        let (head, _) = end.ask(POST).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(methods(&seen), [(1, "GET".to_owned()), (2, "POST".to_owned())]);
    });
}
