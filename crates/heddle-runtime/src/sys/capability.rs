//! Capability sets of the calling thread. Everything here is *after fork*.

use std::io;

use super::check;

/// _LINUX_CAPABILITY_VERSION_3: two 32-bit words per set.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Words {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// What the thread may use, as bits by capability number.
pub(crate) fn permitted() -> io::Result<u64> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut words = [Words::default(); 2];
    // SAFETY: capget with version 3 fills two `Words`.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
    check(result as libc::c_int)?;
    Ok(u64::from(words[0].permitted) | u64::from(words[1].permitted) << 32)
}

/// Sets effective and permitted to `permitted`, inheritable to `inheritable`.
pub(crate) fn set(permitted: u64, inheritable: u64) -> io::Result<()> {
    let word = |shift: u32| Words {
        effective: (permitted >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let mut header = Header { version: VERSION_3, pid: 0 };
    let words = [word(0), word(32)];
    // SAFETY: capset with version 3 reads two `Words`.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
    check(result as libc::c_int).map(drop)
}

/// Is this capability in the bounding set? An error (EINVAL) means the kernel does not know it.
pub(crate) fn is_bounding(capability: u32) -> io::Result<bool> {
    prctl(libc::PR_CAPBSET_READ, u64::from(capability), 0).map(|value| value == 1)
}

/// Takes a capability out of the bounding set: no exec gives it back.
pub(crate) fn drop_bounding(capability: u32) -> io::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, u64::from(capability), 0).map(drop)
}

/// Empties the ambient set.
pub(crate) fn clear_ambient() -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0).map(drop)
}

/// Keeps a permitted and inheritable capability through exec.
pub(crate) fn raise_ambient(capability: u32) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, u64::from(capability)).map(drop)
}

/// No exec gives more than the caller has.
pub(crate) fn set_no_new_privs() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

fn prctl(option: libc::c_int, second: u64, third: u64) -> io::Result<libc::c_int> {
    // SAFETY: the options used here take numbers only.
    check(unsafe { libc::prctl(option, second, third, 0, 0) })
}
