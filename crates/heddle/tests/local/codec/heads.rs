//! Heads: what belongs to one hop stays there, interim responses pass, and some heads have no body.

use super::{Outcomes, Server, between, mesh_with};
use crate::{as_both_users, host::Machine};

as_both_users!(
    what_belongs_to_one_hop_is_removed_on_each_side,
    any_number_of_interim_responses_is_forwarded,
    an_upgrade_makes_a_relay,
    some_answers_have_no_body_whatever_their_length_says,
);

fn what_belongs_to_one_hop_is_removed_on_each_side(machine: &Machine) {
    let Some((mesh, _servers)) = mesh_with(machine, "hops", &[Server::Node]) else { return };
    let told = Outcomes::by(machine, &mesh, &["fields"]);
    let (answered, body) = told.came("fields").split_once("\r\n\r\n").unwrap();
    // Node tells names and values in turn, as they came.
    let seen = between(body, "fields ", " end").remove(0);
    let asked = "Host|anything|X-One|1|connection|TE|TE|trailers|x-TWO|2|x-request-id|";
    assert!(seen.to_lowercase().starts_with(&asked.to_lowercase()), "{seen}");
    assert!(seen.starts_with("Host|anything|X-One|1|") && seen.contains("|x-TWO|2|"), "{seen}");
    let all = [seen, answered].map(str::to_lowercase);
    for (text, field) in all.iter().flat_map(|text| {
        ["x-private", "x-nominated", "keep-alive", "proxy-connection"].map(|field| (text, field))
    }) {
        assert!(!text.contains(field), "{field} in {text}");
    }
    assert!(answered.starts_with("HTTP/1.1 200 OK\r\nX-First: 1\r\n"), "{answered}");
    assert!(answered.contains("\r\nx-LAST: 2\r\n"), "{answered}");
}

fn any_number_of_interim_responses_is_forwarded(machine: &Machine) {
    let Some((mesh, _servers)) = mesh_with(machine, "interim", &[Server::Node]) else { return };
    let told = Outcomes::by(machine, &mesh, &["interim", "expect", "several", "unwanted"]);
    let hints = ["HTTP/1.1 103 ", "/a.css", "HTTP/1.1 103 ", "/b.css", "HTTP/1.1 200 OK"];
    told.in_order("interim", &hints);
    told.in_order("expect", &["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK", "/post 5"]);
    told.in_order(
        "several",
        &["103 ", "/a.css", "102 ", "100 Continue\r\n\r\n", "103 ", "/b.css", "200 OK", " 5"],
    );
    assert!(told.came("unwanted").starts_with("HTTP/1.1 417 "), "100 is the server's to send");
}

fn an_upgrade_makes_a_relay(machine: &Machine) {
    let Some((mesh, _servers)) = mesh_with(machine, "upgrade", &[Server::Node]) else { return };
    let told = Outcomes::by(machine, &mesh, &["upgrade"]);
    told.in_order("upgrade", &["HTTP/1.1 101 ", "Upgrade: echo", "\r\n\r\n", "over and out"]);
}

fn some_answers_have_no_body_whatever_their_length_says(machine: &Machine) {
    let servers = [Server::Node, Server::Python, Server::Nginx];
    let Some((mesh, _servers)) = mesh_with(machine, "bodiless", &servers) else { return };
    let told = Outcomes::by(machine, &mesh, &["bodiless", "bodilessWithLength", "bodilessFile"]);
    let statuses = ["HTTP/1.1 200 ", "\r\n\r\nHTTP/1.1 204 ", "\r\n\r\nHTTP/1.1 304 "];
    let statuses = [&statuses[..], &["\r\n\r\nHTTP/1.1 200 "]].concat();
    told.in_order("bodiless", &[&statuses[..], &["/last 0"]].concat());
    assert!(!told.came("bodiless").contains("/page"), "an answer to HEAD has no body");
    let first = ["HTTP/1.1 200 ", "/first on "];
    told.in_order("bodilessWithLength", &[&first, &statuses[..], &["/last on "]].concat());
    let ports = between(told.came("bodilessWithLength"), " on ", ".");
    assert_eq!(ports[0], ports[1], "the server's connection went on too");
    told.in_order(
        "bodilessFile",
        &["200 OK", "Content-Length: 8", "\r\n\r\nHTTP/1.1 304 ", "\r\n\r\nHTTP/1.1 200 OK"],
    );
    assert_eq!(told.came("bodilessFile").matches("the page").count(), 1);
}
