//! Capabilities: what a child may still do after exec.

use std::io;

use crate::sys;

/// A Linux capability that Heddle speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// Ports below the namespace's first unprivileged one.
    NetBindService = 10,
    /// Links, addresses, rules, SO_MARK.
    NetAdmin = 12,
    /// Raw sockets; since Linux 5.17 also SO_MARK.
    NetRaw = 13,
    /// Namespaces and mounts.
    SysAdmin = 21,
}

/// A set of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilitySet(u64);

/// What a child has after exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Privileges {
    /// What exec gives: everything to root, nothing to others.
    #[default]
    Unchanged,
    /// All that the child has in its user namespace, kept as ambient for who is not root.
    All,
    /// These only, as far as the child has them; no exec gives more.
    Only(CapabilitySet),
    /// All but these; no exec gives them back.
    AllBut(CapabilitySet),
}

impl CapabilitySet {
    /// None.
    pub const NONE: Self = Self(0);

    /// These.
    pub const fn of(capabilities: &[Capability]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < capabilities.len() {
            bits |= 1 << capabilities[index] as u8;
            index += 1;
        }
        Self(bits)
    }

    /// Is it in the set?
    pub const fn contains(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u8) != 0
    }
}

/// What this process may do now.
///
/// # Errors
/// As capget(2).
pub fn permitted() -> io::Result<CapabilitySet> {
    sys::capability::permitted().map(CapabilitySet)
}

/// Highest capability number a set can name.
const CAPABILITY_MAX: u32 = 63;

/// Gives the calling thread `privileges` for after its exec. *After fork.* `root` says whether its
/// user id is 0, for whom exec grants the bounding set.
pub(crate) fn apply(privileges: Privileges, root: bool) -> io::Result<()> {
    let kept = match privileges {
        Privileges::Unchanged => return Ok(()),
        Privileges::All => u64::MAX,
        Privileges::Only(CapabilitySet(set)) => set,
        Privileges::AllBut(CapabilitySet(set)) => !set,
    };
    let permitted = sys::capability::permitted()?;
    limit_bounding_set(kept, root)?;
    let ours = permitted & kept;
    // Root's exec grants from the bounding set; for others only ambient capabilities live on, which
    // must be inheritable first.
    let carried = if root { 0 } else { ours };
    sys::capability::set(ours, carried)?;
    sys::capability::clear_ambient()?;
    for capability in 0..=CAPABILITY_MAX {
        if carried & (1 << capability) != 0 {
            sys::capability::raise_ambient(capability)?;
        }
    }
    Ok(())
}

fn limit_bounding_set(kept: u64, root: bool) -> io::Result<()> {
    for capability in 0..=CAPABILITY_MAX {
        let Ok(bounding) = sys::capability::is_bounding(capability) else { break };
        if !bounding || kept & (1 << capability) != 0 {
            continue;
        }
        match sys::capability::drop_bounding(capability) {
            // Without CAP_SETPCAP the set stays, which matters to root only: for others exec grants
            // nothing but ambient capabilities.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && !root => break,
            result => result?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_it_was_made_of() {
        let set = CapabilitySet::of(&[Capability::NetAdmin, Capability::SysAdmin]);
        assert!(set.contains(Capability::NetAdmin) && set.contains(Capability::SysAdmin));
        assert!(!set.contains(Capability::NetRaw));
        assert_eq!(CapabilitySet::of(&[]), CapabilitySet::NONE);
    }
}
