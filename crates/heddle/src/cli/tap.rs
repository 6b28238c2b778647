//! Flags of `heddle tap`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use heddle_observe::tap::Sides;
use heddle_wire::local::tap_api::{self, Name, PathFilter, StatusFilter, TapFilter};

use super::{
    common::{Output, TargetFlags},
    values,
};

/// On which side of calls is listened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum SideFlag {
    /// Each call once: as the callee's sidecar saw it; as the caller's did, where the callee has none or did not see it so
    #[default]
    Once,
    /// As the caller's sidecar saw it
    Client,
    /// As the callee's sidecar saw it
    Server,
    /// Both: most calls twice
    Both,
}

/// `heddle tap`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  heddle tap                                       every call in the mesh
  heddle tap reviews --status 5xx --max 20         the next 20 failures of a service
  heddle tap --from web --to api                   one edge
  heddle tap api --path /users --slower-than 200ms --header user-agent
  heddle tap --status failed --for 30s -o json     for programs: one object per line

Values of headers are shown only where they are asked for, and what is secret (Authorization, Cookie, tokens) never.")]
pub(crate) struct TapArgs {
    /// Calls of this service or workload, e.g. reviews or reviews.shop [default: all]
    #[arg(value_name = "NAME", value_parser = Name::parse, conflicts_with = "to")]
    pub name: Option<Name>,
    /// The same
    #[arg(long, value_name = "NAME", value_parser = Name::parse)]
    pub to: Option<Name>,
    /// Calls by this service or workload
    #[arg(long, value_name = "NAME", value_parser = Name::parse)]
    pub from: Option<Name>,
    /// Calls of what is in this namespace [default: all]
    #[arg(long, short, value_name = "NS", value_parser = values::label)]
    pub namespace: Option<String>,
    /// Of all namespaces, which is also the default
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// With this status: 503, 5xx, 500-504, none (nothing was answered), or failed or error (5xx, refused, broken off, an error of gRPC); several with commas
    #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = status)]
    pub status: Vec<StatusFilter>,
    /// Of paths that begin so, or, with a `*` in it, that are so as a whole: /users/*/cart
    #[arg(long, value_name = "PATH", value_parser = PathFilter::parse)]
    pub path: Option<PathFilter>,
    /// With this method; several with commas
    #[arg(long, value_name = "METHOD", value_delimiter = ',', value_parser = tap_api::method)]
    pub method: Vec<String>,
    /// That took longer than this
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub slower_than: Option<Duration>,
    /// That meet this expression, as an access log's filter: "request.headers['x-user'] == 'a'"
    #[arg(long, value_name = "EXPR", value_parser = condition)]
    pub filter: Option<String>,
    /// Show the value of this header, of the request and of its answer; may be repeated
    #[arg(long, value_name = "NAME", value_parser = tap_api::field)]
    pub header: Vec<String>,
    /// On which side of calls to listen
    #[arg(long, value_enum, default_value_t)]
    pub side: SideFlag,
    /// End after so many calls
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max: Option<u64>,
    /// End after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = values::duration)]
    pub duration: Option<Duration>,
    /// How to print; `json` prints one object per line
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
    /// Which mesh.
    #[command(flatten)]
    pub mesh: TargetFlags,
}

impl TapArgs {
    /// Which calls are meant.
    pub(crate) fn filter(&self) -> TapFilter {
        TapFilter {
            side: None,
            unseen: false,
            to: self.name.clone().or_else(|| self.to.clone()),
            namespace: self.namespace.clone(),
            from: self.from.clone(),
            status: self.status.clone(),
            path: self.path.clone(),
            method: self.method.clone(),
            slower_than: self.slower_than,
            headers: self.header.clone(),
            expression: self.filter.clone(),
        }
    }

    /// On which sides.
    pub(crate) fn sides(&self) -> Sides {
        match self.side {
            SideFlag::Once => Sides::Once,
            SideFlag::Client => Sides::Client,
            SideFlag::Server => Sides::Server,
            SideFlag::Both => Sides::Both,
        }
    }
}

/// `error` is what `heddle traces` calls it.
fn status(text: &str) -> Result<StatusFilter, String> {
    if text.eq_ignore_ascii_case("error") {
        Ok(StatusFilter::Failed)
    } else {
        StatusFilter::parse(text)
    }
}

fn condition(text: &str) -> Result<String, String> {
    tap_api::condition(text).map(|_| text.to_owned())
}
