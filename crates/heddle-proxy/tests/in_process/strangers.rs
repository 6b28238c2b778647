//! What one client leaves on a connection never reaches another: authentication, surplus bytes, a
//! server about to close.

use std::{cell::RefCell, rc::Rc, time::Duration};

use heddle_runtime::clock;

use crate::mesh::{End, GET, Mesh, OK, POST, with_standing_clock};

const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: reviews\r\n\r\n";

/// Authenticates its connections, as NTLM does: in two steps, and for all that follows on them.
async fn authenticates_connections(mut end: End) {
    let mut user = None;
    while let Some((head, _)) = end.message().await {
        let said = head.lines().find_map(|line| line.strip_prefix("Authorization: NTLM "));
        match (said, &user) {
            (Some("hello"), _) => {
                end.send("HTTP/1.1 401 Who\r\nWWW-Authenticate: NTLM challenge\r\nContent-Length: 0\r\n\r\n")
                    .await;
            }
            (Some(name), _) => {
                user = Some(name.to_owned());
                end.send(OK).await;
            }
            (None, Some(name)) => {
                let length = name.len();
                end.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}"))
                    .await;
            }
            (None, None) => {
                end.send("HTTP/1.1 401 Who\r\nWWW-Authenticate: Negotiate, NTLM\r\nContent-Length: 0\r\n\r\n")
                    .await;
            }
        }
    }
}

fn with(authorization: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: reviews\r\nAuthorization: NTLM {authorization}\r\n\r\n")
}

#[test]
fn nobody_is_answered_as_the_client_that_authenticated_the_connection() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(authenticates_connections);
        let (mut anna, mut stranger) = (mesh.call(), mesh.call());
        anna.ask(GET).await;
        anna.ask(&with("hello")).await;
        let (head, _) = anna.ask(&with("anna")).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        for _ in 0..5 {
            let (head, _) = stranger.ask(GET).await;
            assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
            let (_, body) = anna.ask(GET).await;
            assert_eq!(body, "anna", "she stays who she is");
        }
        clock::sleep(Duration::from_secs(60)).await;
        assert_eq!(anna.ask(GET).await.1, "anna", "however long she thinks");
    });
}

#[test]
fn a_client_stays_at_the_endpoint_that_knows_it() {
    with_standing_clock(|| async {
        let mesh = Mesh::with_servers(&[20, 21, 22], authenticates_connections);
        let mut clients = Vec::new();
        for name in ["anna", "bert", "carl", "dora"] {
            let mut end = mesh.call();
            end.ask(&with("hello")).await;
            end.ask(&with(name)).await;
            clients.push((end, name));
        }
        for _ in 0..10 {
            for (end, name) in &mut clients {
                assert_eq!(end.ask(GET).await.1, *name);
            }
        }
    });
}

/// Answers HEAD with a body, a little after its head.
async fn bodies_behind_heads(mut end: End) {
    while let Some((head, _)) = end.message().await {
        if head.starts_with("GET") {
            end.send(OK).await;
        } else {
            end.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n").await;
            clock::sleep(Duration::from_millis(1)).await;
            end.send("poison").await;
        }
    }
}

#[test]
fn a_body_that_should_not_be_there_reaches_no_other_client() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(bodies_behind_heads);
        for _ in 0..20 {
            let mut one = mesh.call();
            one.send(HEAD).await;
            assert!(one.head().await.expect("a head").starts_with("HTTP/1.1 200 "));
            let (head, body) = mesh.call().ask(GET).await;
            assert!(head.starts_with("HTTP/1.1 200 ") && body == "ok", "{head}{body}");
        }
    });
}

#[test]
fn answers_without_a_body_leave_their_connection_to_their_client() {
    with_standing_clock(|| async {
        for status in ["204 No Content", "304 Not Modified"] {
            let mesh = Mesh::new(move |mut end: End| async move {
                while end.message().await.is_some() {
                    end.send(&format!("HTTP/1.1 {status}\r\n\r\n")).await;
                }
            });
            let (mut one, mut other) = (mesh.call(), mesh.call());
            for _ in 0..3 {
                one.send(GET).await;
                one.head().await.expect("an answer");
                other.send(GET).await;
                other.head().await.expect("an answer");
            }
            assert_eq!(mesh.connects(), 2, "one for each of them");
        }
    });
}

#[test]
fn a_post_on_a_new_connection_meets_no_server_that_closes_behind_its_last_answer() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(|mut end: End| async move {
            end.message().await.expect("a request");
            end.send(OK).await;
            clock::sleep(Duration::from_millis(2)).await;
        });
        for number in 0..60 {
            let (head, _) = mesh.call().ask(if number % 3 == 0 { GET } else { POST }).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            clock::sleep(Duration::from_millis(number % 4)).await;
        }
    });
}

#[test]
fn a_client_that_posts_again_uses_its_connection_again() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(crate::mesh::answers);
        let mut end = mesh.call();
        for _ in 0..5 {
            end.ask(POST).await;
        }
        assert_eq!(mesh.connects(), 1);
    });
}

/// A server with one thread: it reads one connection to its end, then the next.
pub(crate) fn single_threaded() -> (Mesh, Rc<RefCell<Vec<String>>>) {
    let seen = Rc::<RefCell<Vec<String>>>::default();
    let (log, thread) = (Rc::clone(&seen), Rc::new(tokio::sync::Mutex::new(())));
    let mesh = Mesh::new(move |mut end: End| {
        let (log, thread) = (Rc::clone(&log), Rc::clone(&thread));
        async move {
            let _only_one = thread.lock().await;
            while let Some((head, _)) = end.message().await {
                let close = head.to_ascii_lowercase().contains("connection: close");
                log.borrow_mut().push(head);
                end.send(OK).await;
                if close {
                    return;
                }
            }
        }
    });
    (mesh, seen)
}

#[test]
fn a_clients_close_reaches_the_server_and_frees_it_for_others() {
    let requests = [
        "GET / HTTP/1.1\r\nHost: reviews\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: reviews\r\n\r\n",
    ];
    for request in requests {
        with_standing_clock(|| async {
            let (mesh, seen) = single_threaded();
            let begun = clock::now();
            let (mut one, mut other) = (mesh.call(), mesh.call());
            tokio::join!(one.ask(request), other.ask(request));
            for _ in 0..3 {
                mesh.call().ask(request).await;
            }
            assert!(clock::now() - begun < Duration::from_secs(1), "nobody waited");
            assert_eq!(seen.borrow().len(), 5);
        });
    }
}

#[test]
fn a_client_of_http10_that_keeps_its_connection_keeps_the_servers() {
    with_standing_clock(|| async {
        let (mesh, seen) = single_threaded();
        let mut end = mesh.call();
        for _ in 0..3 {
            end.ask("GET / HTTP/1.0\r\nHost: reviews\r\nConnection: keep-alive\r\n\r\n").await;
        }
        assert_eq!(mesh.connects(), 1);
        assert!(seen.borrow().iter().all(|head| !head.to_ascii_lowercase().contains("close")));
    });
}
