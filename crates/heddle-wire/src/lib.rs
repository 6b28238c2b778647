//! Bytes that cross a process boundary: discovery's envelope and resources, the HTTP/1 codec, protocol detection,
//! what a ClientHello asks for, trace contexts and spans, what gzip compressed, percent-encoding, and the JSON of the
//! local APIs. Nothing here opens a socket or reads a clock.

pub mod client_hello;
pub mod detect;
pub mod discovery;
pub mod gzip;
pub mod http1;
pub mod local;
pub mod peer_extension;
pub mod percent;
pub mod trace;
