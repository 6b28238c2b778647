//! What the tests of several crates share; a dev-dependency only.
//!
//! | module | what it makes |
//! |---|---|
//! | [`backend`] | servers made of closures, raw clients |
//! | [`control`] | a control plane whose every message is sent by hand |
//! | [`fixture`] | configurations as a mesh would write them |
//! | [`folder`] | folders that go away with the test |
//! | [`resources`] | what a control plane tells of a service `reviews` and others |
//! | [`tls`] | certificates made for one test, the server's side of TLS |
//! | [`wait`] | bounded waiting for what another process or thread does |

#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]
#![expect(clippy::missing_panics_doc, reason = "everything here panics where a test fails")]

pub mod backend;
pub mod control;
pub mod fixture;
pub mod folder;
pub mod resources;
pub mod tls;
pub mod wait;
