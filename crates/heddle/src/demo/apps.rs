//! The demo's applications: a restaurant-review site of seven services and a load generator.
//!
//! They are ordinary programs that know nothing of a mesh: no file below this one imports a
//! `heddle-*` crate (`cargo xtask tidy` proves it). Some of the services exist in Python and
//! JavaScript too and run as those where the interpreter is installed; `redis-server` takes the
//! store's place where it is installed.

mod args;
mod counts;
mod http;
mod kv;
mod load;
mod page;
mod service;

pub(crate) use args::AppArgs;

/// `reviews` and `ratings` for Node.
pub(crate) const NODE_APP: &str = include_str!("apps/app.js");
/// `reviews` and `photos` for Python 3.
pub(crate) const PYTHON_APP: &str = include_str!("apps/app.py");

/// Runs one application until it is killed.
///
/// # Errors
/// A port or a socket that cannot be bound.
pub(crate) fn run(args: &AppArgs) -> std::io::Result<()> {
    match args.role.as_str() {
        "loadgen" => load::run(args),
        "store" => kv::run(args),
        _ => service::run(args),
    }
}
