//! Mounting through descriptors. Everything here is *after fork*.

use std::{
    ffi::CStr,
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use super::check;

const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const MOUNT_ATTR_RDONLY: u64 = 1;

/// struct mount_attr of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Mounts and unmounts no longer travel between this mount namespace and others.
pub(crate) fn make_all_private() -> io::Result<()> {
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the target ends with NUL; the other pointers may be null for a propagation change.
    let result =
        unsafe { libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), flags, ptr::null()) };
    check(result).map(drop)
}

/// A detached copy of the mount at `path` (one file or folder, without what is mounted below).
pub(crate) fn clone_tree(path: &CStr) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    // SAFETY: the path ends with NUL.
    let number =
        unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let number = check(number as libc::c_int)?;
    // SAFETY: just opened, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes a detached mount read-only; ENOSYS before Linux 5.12.
pub(crate) fn set_read_only(tree: BorrowedFd<'_>) -> io::Result<()> {
    let attr = MountAttr { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: the path ends with NUL, and the size given is that of the struct read.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    check(result as libc::c_int).map(drop)
}

/// Makes the mount at `path` read-only the old way, keeping the flags it may not lose.
pub(crate) fn remount_read_only(path: &CStr) -> io::Result<()> {
    let mut state = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with NUL and `state` has room.
    check(unsafe { libc::statvfs(path.as_ptr(), state.as_mut_ptr()) })?;
    // SAFETY: statvfs succeeded, so it filled the struct.
    let state = unsafe { state.assume_init() };
    let kept = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_NOATIME;
    let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | (state.f_flag & kept);
    // SAFETY: the target ends with NUL; the other pointers may be null for a remount.
    let result =
        unsafe { libc::mount(ptr::null(), path.as_ptr(), ptr::null(), flags, ptr::null()) };
    check(result).map(drop)
}

/// Attaches a detached mount over what `target` (opened with O_PATH) names: the file itself, be it
/// a symbolic link.
pub(crate) fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both paths are the empty string; the descriptors are open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    check(result as libc::c_int).map(drop)
}

/// Covers the folder `path` with an empty, read-only one.
pub(crate) fn cover_with_nothing(path: &CStr) -> io::Result<()> {
    let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: all strings end with NUL.
    let result = unsafe {
        libc::mount(
            c"none".as_ptr(),
            path.as_ptr(),
            c"tmpfs".as_ptr(),
            flags,
            c"size=4k,mode=755".as_ptr().cast(),
        )
    };
    check(result).map(drop)
}
