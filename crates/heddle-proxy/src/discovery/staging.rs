//! A generation on its way in: decoded response by response, in force only as a whole.

use heddle_wire::discovery::{
    ResourceType,
    proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, RpcStatus},
};

use super::{
    decode::{Decoded, decode},
    subscriptions::{StoredResource, Subscriptions},
};
use crate::snapshot::ResourceSet;

/// Longest reason sent with a NACK, bytes.
const REASON_MAX: usize = 2048;

/// Responses of a generation that has not ended.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) generation: u64,
    /// Everything held, with what came so far.
    pub(super) set: ResourceSet,
    /// What came: held anew, or (`None`) gone.
    pub(super) changes: Vec<(ResourceType, String, Option<StoredResource>)>,
    /// One of its resources was refused: nothing of it takes force.
    pub(super) refused: bool,
}

impl Staged {
    pub(super) fn new(generation: u64, set: ResourceSet) -> Self {
        Self { generation, set, changes: Vec::new(), refused: false }
    }

    /// Decodes a response's resources into it. The error is the reason to refuse the response.
    pub(super) fn take(
        &mut self,
        response: DeltaDiscoveryResponse,
        subscriptions: &Subscriptions,
    ) -> Result<ResourceType, String> {
        let kind = ResourceType::from_type_url(&response.type_url)
            .ok_or_else(|| format!("`{}` is no resource type of this proxy", response.type_url))?;
        for resource in response.resources {
            let name = resource.name;
            // Endpoints come with the destinations that name them; all else was asked for, or was
            // until a moment ago.
            if kind != ResourceType::Endpoints && !subscriptions.contains(kind, &name) {
                continue;
            }
            let body = resource.resource.map(|any| any.value).unwrap_or_default();
            decode(kind, &name, &body)?.insert_into(&mut self.set);
            let stored = StoredResource { version: resource.version, body: body.into() };
            self.changes.push((kind, name, Some(stored)));
        }
        for name in response.removed_resources {
            if kind == ResourceType::Inbound || kind == ResourceType::Mesh {
                // What this proxy is does not end before the proxy does.
                continue;
            }
            Decoded::remove_from(kind, &name, &mut self.set);
            self.changes.push((kind, name, None));
        }
        Ok(kind)
    }
}

/// Says that a response is accepted.
pub(super) fn ack(type_url: &str, nonce: String) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.into(),
        response_nonce: nonce,
        ..DeltaDiscoveryRequest::default()
    }
}

/// Says that a response is refused, and why.
pub(super) fn nack(type_url: &str, nonce: String, reason: &str) -> DeltaDiscoveryRequest {
    let end = (0..=reason.len().min(REASON_MAX)).rev().find(|at| reason.is_char_boundary(*at));
    let message = reason[..end.unwrap_or(0)].to_owned();
    let code = tonic::Code::InvalidArgument as i32;
    DeltaDiscoveryRequest {
        error_detail: Some(RpcStatus { code, message }),
        ..ack(type_url, nonce)
    }
}
