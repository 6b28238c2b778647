//! Who is at the other end of a connection: what the kernel says of a path socket, or what a certificate says.
//! What a caller says of itself is compared with that, and never believed instead.

use std::sync::Arc;

use heddle_model::{WorkloadId, name::WORKLOAD_ID_BYTES_MAX};
use tonic::{Request, Status, transport::server::UdsConnectInfo};

use crate::ca::Certified;

/// Who calls.
#[derive(Debug, Clone)]
pub enum Caller {
    /// A process of our own user on this machine: it is let in by path socket, and is who it says.
    Local,
    /// Somebody with a certificate of the mesh.
    Certified(Arc<Certified>),
    /// Somebody who did not say who they are, or was not believed; why, for them to read.
    Stranger(Arc<str>),
}

impl Caller {
    /// Who is behind a request.
    pub fn of<T>(request: &Request<T>) -> Self {
        let extensions = request.extensions();
        if let Some(caller) = extensions.get::<Self>() {
            return caller.clone();
        }
        match extensions.get::<UdsConnectInfo>() {
            Some(_) => Self::Local,
            None => Self::Stranger("this connection does not tell who calls".into()),
        }
    }

    /// Is it somebody?
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), Status> {
        match self {
            Self::Local | Self::Certified(_) => Ok(()),
            Self::Stranger(reason) => Err(Status::unauthenticated(reason.to_string())),
        }
    }

    /// The workload that calls. It may say so itself, `place` is where: then it must say the truth.
    ///
    /// # Errors
    /// It is nobody, says nothing where it must, or says that it is another.
    pub fn workload(&self, claimed: &str, place: &str) -> Result<WorkloadId, Status> {
        self.check()?;
        match self {
            Self::Certified(shown) if claimed.is_empty() || claimed == shown.workload.0 => {
                Ok(shown.workload.clone())
            }
            Self::Certified(shown) => {
                let claimed: String = claimed.chars().take(WORKLOAD_ID_BYTES_MAX).collect();
                Err(Status::permission_denied(format!(
                    "{place} says `{claimed}`, the certificate says `{}`: a proxy is who its certificate says",
                    shown.workload
                )))
            }
            _ if claimed.is_empty() || claimed.len() > WORKLOAD_ID_BYTES_MAX => {
                Err(Status::invalid_argument(format!("{place} must name its workload")))
            }
            _ => Ok(WorkloadId(claimed.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use heddle_model::Identity;
    use tonic::Code;

    use super::*;

    fn certified() -> Caller {
        Caller::Certified(Arc::new(Certified {
            workload: WorkloadId::of_pod("default", "web-1"),
            identity: Identity::local("default", "web"),
            pod_uid: String::new(),
            not_after: 0,
        }))
    }

    #[test]
    fn a_certificate_says_who_calls_and_a_different_claim_is_refused_by_both_names() {
        let caller = certified();
        for claimed in ["", "default.web-1"] {
            assert_eq!(caller.workload(claimed, "node.id").unwrap().0, "default.web-1");
        }
        let refused = caller.workload("default.db-0", "node.id").unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains("`default.db-0`"), "{refused}");
        assert!(refused.message().contains("`default.web-1`"), "{refused}");
    }

    #[test]
    fn who_does_not_tell_is_nobody_whatever_is_claimed() {
        let nobody = Caller::of(&Request::new(()));
        let refused = nobody.workload("default.web-1", "node.id").unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }

    #[test]
    fn on_a_path_socket_a_caller_must_say_who_it_is() {
        assert_eq!(Caller::Local.workload("web-1", "node.id").unwrap().0, "web-1");
        for claimed in [String::new(), "x".repeat(WORKLOAD_ID_BYTES_MAX + 1)] {
            let refused = Caller::Local.workload(&claimed, "node.id").unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
        }
    }
}
