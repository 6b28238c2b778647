//! The steps of making and entering namespaces, numbered so that a child can tell by one byte which
//! one failed.

/// A step on the way into a namespace, or of making one. Errors name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Step {
    /// fork(2).
    Fork,
    /// unshare(CLONE_NEWUSER).
    MakeUser,
    /// Denying setgroups, which must come before the gid map.
    DenySetgroups,
    /// Mapping the gid.
    MapGid,
    /// Mapping the uid.
    MapUid,
    /// unshare(CLONE_NEWNET).
    MakeNet,
    /// Bringing `lo` up: the first thing that needs a capability in the new namespace.
    Loopback,
    /// Letting any port be bound.
    LowPorts,
    /// Opening the new namespaces' descriptors.
    Hold,
    /// setns to the user namespace.
    EnterUser,
    /// setns to the network namespace.
    EnterNet,
    /// unshare(CLONE_NEWNS).
    MakeMount,
    /// Making all mounts private.
    PrivateMounts,
    /// Mounting a file or folder over another.
    Mount,
    /// Keeping descriptors through exec.
    Inherit,
    /// Dropping or keeping capabilities.
    Privileges,
    /// PR_SET_PDEATHSIG.
    DieWithParent,
    /// Resetting the signal mask.
    SignalMask,
}

/// All steps, by number.
const STEPS: [Step; 18] = [
    Step::Fork,
    Step::MakeUser,
    Step::DenySetgroups,
    Step::MapGid,
    Step::MapUid,
    Step::MakeNet,
    Step::Loopback,
    Step::LowPorts,
    Step::Hold,
    Step::EnterUser,
    Step::EnterNet,
    Step::MakeMount,
    Step::PrivateMounts,
    Step::Mount,
    Step::Inherit,
    Step::Privileges,
    Step::DieWithParent,
    Step::SignalMask,
];

impl Step {
    /// The step a child told by number.
    pub(crate) fn of_number(number: u8) -> Option<Self> {
        STEPS.get(usize::from(number)).copied()
    }

    /// The step in words, to follow "cannot".
    pub fn text(self) -> &'static str {
        match self {
            Self::Fork => "start a child process",
            Self::MakeUser => "make a user namespace",
            Self::DenySetgroups => "deny setgroups in the new user namespace",
            Self::MapGid => "map the group id into the new user namespace",
            Self::MapUid => "map the user id into the new user namespace",
            Self::MakeNet => "make a network namespace",
            Self::Loopback => "bring the loopback interface of a new network namespace up",
            Self::LowPorts => "allow ports below 1024 in a new network namespace",
            Self::Hold => "open the new namespaces under /proc",
            Self::EnterUser => "enter the mesh's user namespace",
            Self::EnterNet => "enter the network namespace",
            Self::MakeMount => "make a mount namespace",
            Self::PrivateMounts => "make the mounts of a new mount namespace private",
            Self::Mount => "mount a file or folder in a new mount namespace",
            Self::Inherit => "pass descriptors to the child",
            Self::Privileges => "set the child's capabilities",
            Self::DieWithParent => "tie the child's life to its parent's",
            Self::SignalMask => "reset the child's signal mask",
        }
    }
}
