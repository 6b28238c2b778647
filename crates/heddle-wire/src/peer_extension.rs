//! What a certificate of the mesh says of its workload besides the SPIFFE id, which pods of one service account
//! share: an X.509 extension of our own.
//!
//! Its value is CBOR in the form of the nouns (numbered fields, unknown ones are skipped), so that it can say more
//! later. How it is put into a certificate and found there is the business of who makes and reads those.

use heddle_model::WorkloadId;
use minicbor::{Decode, Encode};

/// The extension's object identifier, by its numbers: below 2.25, where a number that was drawn at random is one's
/// own without asking anybody (ITU-T X.667).
pub const PEER_EXTENSION_OID: [u64; 3] = [2, 25, 6_041_722_938_150_417_633];

/// Bytes of the extension's value: two names of Kubernetes, an identifier, and room to grow.
pub const PEER_EXTENSION_BYTES_MAX: usize = 4096;

/// The extension's value.
#[derive(Debug, Clone, PartialEq, Eq, Decode, Encode)]
#[cbor(map)]
pub struct PeerExtension {
    /// Which workload.
    #[n(1)]
    pub workload: WorkloadId,
    /// Uid of its pod; empty if there is none. It tells a pod from the next one of its name.
    #[cbor(n(2), default)]
    pub pod_uid: String,
}

impl PeerExtension {
    /// The value's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // The form cannot fail, and neither can writing to memory.
        let _cannot_fail = minicbor::encode(self, &mut bytes);
        bytes
    }

    /// Reads a value.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > PEER_EXTENSION_BYTES_MAX {
            return Err(format!("it has more than {PEER_EXTENSION_BYTES_MAX} bytes"));
        }
        let one: Self = minicbor::decode(bytes).map_err(|error| error.to_string())?;
        match one.workload.0.is_empty() {
            true => Err("it names no workload".to_owned()),
            false => Ok(one),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_comes_back_and_what_it_may_say_later_is_skipped() {
        let workload = WorkloadId::of_pod("default", "web-1");
        let one = PeerExtension { workload, pod_uid: "7f3a".to_owned() };
        assert_eq!(PeerExtension::decode(&one.encode()), Ok(one));
        // {1: "a.b", 9: true}
        let later = [0xa2, 0x01, 0x63, b'a', b'.', b'b', 0x09, 0xf5];
        let read = PeerExtension::decode(&later).unwrap();
        assert_eq!((read.workload.0.as_str(), read.pod_uid.as_str()), ("a.b", ""));
    }

    #[test]
    fn garbage_and_an_empty_name_are_refused() {
        assert!(PeerExtension::decode(&[0xff]).is_err());
        assert!(PeerExtension::decode(&[]).is_err());
        assert!(PeerExtension::decode(&vec![0; PEER_EXTENSION_BYTES_MAX + 1]).is_err());
        let nobody = PeerExtension { workload: WorkloadId(String::new()), pod_uid: String::new() };
        assert!(PeerExtension::decode(&nobody.encode()).is_err());
    }
}
