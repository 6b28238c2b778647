//! Bodies: chunks, trailers, an end by close; and what is cut arrives cut.

use super::{Outcomes, Server, between, mesh_with};
use crate::{as_both_users, host::Machine};

as_both_users!(
    chunk_extensions_are_dropped_and_trailers_forwarded,
    an_answer_may_be_delimited_by_close,
    a_truncated_answer_is_passed_on_as_truncated,
    a_truncated_request_is_never_completed,
);

fn chunk_extensions_are_dropped_and_trailers_forwarded(machine: &Machine) {
    let servers = [Server::Node, Server::Python];
    let Some((mesh, _servers)) = mesh_with(machine, "chunks", &servers) else { return };
    let told = Outcomes::by(machine, &mesh, &["trailers", "extensions"]);
    // The server says which body and which trailer it read, and that it saw no extension.
    told.in_order("trailers", &["abc here false", "0\r\n", "x-sum: 42\r\n\r\n"]);
    let body = told.came("extensions").split_once("\r\n\r\n").unwrap().1;
    assert_eq!(body, "3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 7\r\n\r\n");
}

fn an_answer_may_be_delimited_by_close(machine: &Machine) {
    let Some((mesh, _servers)) = mesh_with(machine, "byclose", &[Server::ByClose]) else { return };
    let told = Outcomes::by(machine, &mesh, &["byClose"]);
    told.in_order("byClose", &[" 200 OK", "until the close"]);
    assert_eq!(told.how("byClose"), "closed");
}

fn a_truncated_answer_is_passed_on_as_truncated(machine: &Machine) {
    let servers = [Server::Node, Server::Python];
    let Some((mesh, _servers)) = mesh_with(machine, "cut", &servers) else { return };
    let told = Outcomes::by(machine, &mesh, &["cut", "cutChunk", "cutByReset"]);
    told.in_order("cut", &["HTTP/1.1 200 OK", "ontent-", "ength: 100", "\r\n\r\nhalf"]);
    told.in_order("cutChunk", &["HTTP/1.1 200 OK", "hunked", "4\r\nhalf\r\n"]);
    assert!(!told.came("cutChunk").contains("\r\n0\r\n"), "no last chunk of the mesh's making");
    for case in ["cut", "cutChunk"] {
        assert_ne!(told.how(case), "open", "a truncated answer ends with its connection");
    }
    told.in_order("cutByReset", &["HTTP/1.1 200 OK", "half"]);
    assert_eq!(told.how("cutByReset"), "ECONNRESET", "an orderly end would make it whole");
}

fn a_truncated_request_is_never_completed(machine: &Machine) {
    let servers = [Server::Node, Server::Python];
    let Some((mesh, _servers)) = mesh_with(machine, "uploads", &servers) else { return };
    let told = Outcomes::by(machine, &mesh, &["uploads", "uploadToPython"]);
    let seen = between(told.came("uploads"), "uploads ", " end").remove(0);
    let seen: serde_json::Value = serde_json::from_str(seen).unwrap();
    for case in ["lengthEnded", "lengthDestroyed", "chunkEnded", "chunkDestroyed"] {
        assert_eq!(seen[case], "aborted 5 false", "{case} in {seen}");
    }
    told.in_order("uploadToPython", &["HTTP/1.1 200 OK", "read 5 of 100"]);
}
