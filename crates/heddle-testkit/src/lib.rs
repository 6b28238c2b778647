//! Test hosts and fault-making backends; a dev-dependency only.
