//! What is written to a Prometheus, and what is told of its refusals.

use std::fmt::Write as _;

use crate::limits;

/// A value of a query string.
pub(super) fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => {
                encoded.push(char::from(byte));
            }
            // Writing to a text never fails.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
        encoded
    })
}

/// What a refusal says: the reason in Prometheus' words, else how its text begins.
pub(super) fn said(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    if let Some(error) = json.as_ref().and_then(|json| json["error"].as_str()) {
        return error.to_owned();
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(limits::ELSEWHERE_SAID_MAX)]);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
