//! Connections: whose end is whose, what may be used again, and requests one after the other.

use super::{Outcomes, Server, between, mesh_with};
use crate::{as_both_users, host::Machine, tools::installed};

as_both_users!(
    a_clients_close_reaches_the_server_and_a_servers_stays_there,
    http_1_0_is_served_with_and_without_keep_alive,
    pipelined_requests_are_answered_in_order,
    a_client_that_half_closes_gets_its_answer,
    after_an_early_answer_the_servers_connection_is_not_used_again,
);

fn a_clients_close_reaches_the_server_and_a_servers_stays_there(machine: &Machine) {
    let Some((mesh, _servers)) = mesh_with(machine, "closes", &[Server::Node]) else { return };
    let told = Outcomes::by(machine, &mesh, &["clientCloses", "serverCloses"]);
    let client = told.came("clientCloses");
    let (asked, open) = client
        .split_once(" end")
        .map_or((client, ""), |(all, _)| all.split_once("open ").expect("the second answer"));
    let number = between(asked, "connection ", ".").remove(0);
    assert!(asked.to_lowercase().contains("connection: close"), "{asked}");
    assert!(!open.split(' ').any(|one| one == format!("{number}.")), "{number} of {open}");

    told.in_order("serverCloses", &["HTTP/1.1 200 ", "connection ", "HTTP/1.1 200 ", "/after 0"]);
    let server = told.came("serverCloses").to_lowercase();
    assert!(!server.contains("connection: close"), "{server}");
}

fn http_1_0_is_served_with_and_without_keep_alive(machine: &Machine) {
    let Some((mesh, _servers)) = mesh_with(machine, "old", &[Server::Node]) else { return };
    let told = Outcomes::by(machine, &mesh, &["old", "oldKept", "oldStream"]);
    told.in_order("old", &[" 200 OK", "/old 0"]);
    told.in_order("oldKept", &["keep-alive", "/one 0", "/two 0"]);
    // Node, asked in HTTP/1.1, sends chunks, which such a client could not read.
    assert!(told.came("oldStream").ends_with("\r\n\r\nfirst second"), "{told:?}");
    for case in ["old", "oldKept", "oldStream"] {
        assert_eq!(told.how(case), "closed", "{case}");
    }
}

fn pipelined_requests_are_answered_in_order(machine: &Machine) {
    let servers = [Server::Node, Server::Nginx];
    let Some((mesh, _servers)) = mesh_with(machine, "pipelined", &servers) else { return };
    let told = Outcomes::by(machine, &mesh, &["pipelined", "pipelinedToNginx"]);
    told.in_order("pipelined", &["/a 0", "/b 2", "/c 0"]);
    let answers = ["200 OK", "the page", "HTTP/1.1 404 ", "HTTP/1.1 200 OK", "connection ", ".3 "];
    told.in_order("pipelinedToNginx", &answers);
}

fn a_client_that_half_closes_gets_its_answer(machine: &Machine) {
    let servers = [Server::Node, Server::Python];
    let Some((mesh, _servers)) = mesh_with(machine, "half", &servers) else { return };
    let told = Outcomes::by(machine, &mesh, &["halfClosed", "halfClosedLate"]);
    told.in_order("halfClosed", &["HTTP/1.1 200 ", "/half 0"]);
    told.in_order("halfClosedLate", &["HTTP/1.1 200 ", "late 0"]);
}

fn after_an_early_answer_the_servers_connection_is_not_used_again(machine: &Machine) {
    let servers = [Server::Node, Server::Nginx];
    let Some((mesh, _servers)) = mesh_with(machine, "early", &servers) else { return };
    let told = Outcomes::by(machine, &mesh, &["early"]);
    told.in_order("early", &["HTTP/1.1 413 ", "too much on "]);
    let early = between(told.came("early"), "too much on ", ".").remove(0);
    let later = between(told.text("early", "later"), "connection ", ".");
    assert_eq!(later.len(), 16);
    assert!(!later.contains(&early), "{early} of {later:?}");
    // A client that goes on sending gets to read the answer all the same.
    if !installed("curl") {
        return;
    }
    let body = machine.dir.join("body");
    std::fs::write(&body, vec![b'x'; 300_000]).unwrap();
    let data = format!("@{}", body.display());
    for expect in ["Expect:", "Expect: 100-continue"] {
        let post = ["curl", "-sS", "--max-time", "20", "-H", expect, "--data-binary", &data];
        let got = mesh.client(&[&post[..], &["-w", " %{http_code}", "http://nginx/"]].concat());
        let read = (got.code, got.stdout.as_str());
        assert_eq!(read, (0, "too large for nginx 413"), "{expect} {}", got.stderr);
    }
}
