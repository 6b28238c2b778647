//! Facts as expressions ask for them, by Envoy's names.

use std::net::SocketAddr;

use heddle_logic::expression::{Attributes, Value};
use heddle_model::{
    discovery::WorkloadInfo,
    yaml::expression::{Attribute, PeerField},
};

use super::Facts;
use crate::{
    metrics::Grpc,
    refusal::{Flag, Flags},
};

/// Envoy's bits of response flags (`source/common/stream_info`), which expressions compare with.
const BITS: [(Flag, u32); 16] = [
    (Flag::UH, 1),
    (Flag::UT, 2),
    (Flag::UF, 5),
    (Flag::UC, 6),
    (Flag::UO, 7),
    (Flag::NR, 8),
    (Flag::DI, 9),
    (Flag::FI, 10),
    (Flag::DC, 14),
    (Flag::URX, 15),
    (Flag::SI, 16),
    (Flag::DPE, 18),
    (Flag::DT, 22),
    (Flag::UPE, 23),
    (Flag::NC, 25),
    (Flag::OM, 26),
];

fn bits(flags: Flags) -> i64 {
    BITS.iter().filter(|(flag, _)| flags.has(*flag)).map(|(_, bit)| 1 << bit).sum()
}

impl Attributes for Facts {
    fn value(&self, attribute: &Attribute) -> Option<Value<'_>> {
        let request = self.request.as_ref();
        let address = |at: SocketAddr| Value::text(at.to_string());
        let port = |at: SocketAddr| Value::Int(at.port().into());
        let said = |text: &str| !text.is_empty();
        Some(match attribute {
            Attribute::Path => Value::text(request?.target.as_str()),
            Attribute::UrlPath => Value::text(path_and_query(&request?.target).0),
            Attribute::Query => Value::text(path_and_query(&request?.target).1),
            Attribute::Host => {
                Value::text(request.map(|one| one.authority.as_str()).filter(|text| said(text))?)
            }
            Attribute::Scheme => Value::text(request?.scheme.as_ref()),
            Attribute::Method => Value::text(request?.method.as_str()),
            Attribute::RequestHeader(name) => Value::text(self.request_field(name)?),
            Attribute::RequestId => Value::text(request?.id.as_deref()?),
            Attribute::Protocol => Value::text(request?.protocol),
            Attribute::Duration => {
                let nanos = i64::try_from(self.finish.duration.as_nanos());
                Value::Duration(nanos.unwrap_or(i64::MAX))
            }
            Attribute::RequestSize => Value::int(self.finish.received),
            Attribute::ResponseCode => Value::Int(match self.finish.status {
                0 => return None,
                status => status.into(),
            }),
            Attribute::ResponseDetails => Value::text(self.answer.details?),
            Attribute::ResponseFlags => Value::Int(bits(self.finish.flags)),
            Attribute::GrpcStatus => match self.finish.grpc {
                Grpc::Status(status) => Value::Int(status.into()),
                Grpc::No | Grpc::Unanswered => return None,
            },
            Attribute::ResponseHeader(name) => Value::text(self.response_field(name)?),
            Attribute::ResponseSize => Value::int(self.finish.sent),
            Attribute::SourceAddress => address(self.ends.remote?),
            Attribute::SourcePort => port(self.ends.remote?),
            Attribute::DestinationAddress => address(self.ends.called),
            Attribute::DestinationPort => port(self.ends.called),
            // No mutual TLS between sidecars yet.
            Attribute::Mtls => Value::Bool(false),
            Attribute::ServerName => Value::text(self.server_name.as_deref()?),
            Attribute::UpstreamAddress => Value::text(self.upstream.address.as_ref()?.to_string()),
            Attribute::UpstreamFailure => Value::text(self.upstream.failure.as_deref()?),
            Attribute::ClusterName => Value::text(self.upstream.cluster.as_deref()?),
            Attribute::RouteName => Value::text(self.rule.as_deref()?),
            Attribute::UpstreamPeer(field) => of_peer(self.upstream.workload.as_deref()?, field)?,
            Attribute::DownstreamPeer(field) => of_peer(self.caller.as_deref()?, field)?,
        })
    }
}

fn of_peer<'a>(peer: &'a WorkloadInfo, field: &PeerField) -> Option<Value<'a>> {
    let label = |name: &str| peer.labels.get(name).map(String::as_str);
    let version = || Some(peer.version.as_str()).filter(|text| !text.is_empty());
    Some(match field {
        PeerField::Name => Value::text(instance(peer)),
        PeerField::Namespace => Value::text(peer.namespace.as_str()),
        PeerField::Workload => Value::text(peer.name.as_str()),
        PeerField::App => Value::text(label("app")?),
        PeerField::Version => Value::text(label("version").or_else(version)?),
        PeerField::Service => Value::text(peer.canonical_name()),
        PeerField::Revision => Value::text(peer.canonical_revision()),
        PeerField::Label(name) => Value::text(label(name)?),
    })
}

/// An instance's name: of a pod that without its namespace, as Istio has it.
fn instance(peer: &WorkloadInfo) -> &str {
    let id = peer.id.0.as_str();
    let pod = id.strip_prefix(&*peer.namespace).and_then(|rest| rest.strip_prefix('.'));
    pod.unwrap_or(id)
}

/// A target's two parts; the query is empty where there is none.
fn path_and_query(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

#[cfg(test)]
mod tests {
    use heddle_model::WorkloadId;

    use super::*;
    use crate::testing::resources;

    #[test]
    fn a_peers_name_is_that_of_its_pod_without_the_namespace() {
        let mut peer = resources::workload("reviews-v1-7f3a", "reviews-v1", "v1");
        assert_eq!(instance(&peer), "reviews-v1-7f3a");
        peer.id = WorkloadId::of_pod(&peer.namespace, "reviews-v1-0");
        assert_eq!(instance(&peer), "reviews-v1-0");
    }
}
