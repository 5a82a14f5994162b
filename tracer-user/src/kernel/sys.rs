//! What aya has no call for.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// `BPF_MAP_LOOKUP_ELEM` and `BPF_MAP_LOOKUP_AND_DELETE_ELEM`, <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/bpf.h>.
const LOOKUP: libc::c_int = 1;
const LOOKUP_AND_DELETE: libc::c_int = 21;

/// `BPF_MAP_LOOKUP_BATCH` and `BPF_MAP_LOOKUP_AND_DELETE_BATCH`, as above.
const LOOKUP_BATCH: libc::c_int = 24;
const LOOKUP_AND_DELETE_BATCH: libc::c_int = 25;

/// `BPF_OBJ_PIN` and `BPF_OBJ_GET`, as above.
const PIN: libc::c_int = 6;
const GET: libc::c_int = 7;

/// The part of `union bpf_attr` that calls on a pinned object take.
#[repr(C)]
struct Pinned {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Pins a program, map or link at a path on a bpffs.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    on_path(PIN, path, object.as_raw_fd().cast_unsigned()).map(drop)
}

/// Opens what is pinned at a path.
#[expect(unsafe_code, reason = "a file descriptor comes back as a number")]
pub(super) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let fd = on_path(GET, path, 0)?;
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it for this call, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[expect(unsafe_code, reason = "a system call that no library wraps")]
fn on_path(command: libc::c_int, path: &Path, fd: u32) -> io::Result<libc::c_long> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let pinned = Pinned {
        path: path.as_ptr() as u64,
        fd,
        flags: 0,
    };
    // SAFETY: the kernel reads `pinned` and the path, which ends with NUL, for no longer than the call
    // lasts; both are alive for that long.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw const pinned,
            size_of::<Pinned>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(done)
}

/// The part of `union bpf_attr` that calls on an element take.
#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Gives the kernel back what the process has freed.
///
/// Reading the kernel's types takes 30 MB for some milliseconds, in pieces so small that glibc would
/// keep them for good. Other allocators give memory back by themselves.
#[cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "a function that no library wraps")
)]
pub(super) fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number; glibc locks its arenas itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Takes an entry out of a hash table, in one step (since Linux 5.14); `false` where there is none.
///
/// `key` and `value` must be as long as the map's.
pub(super) fn take(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    element(LOOKUP_AND_DELETE, map, key, value)
}

/// Reads an entry of a hash table; `false` where there is none.
///
/// `key` and `value` must be as long as the map's.
pub(super) fn get(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    element(LOOKUP, map, key, value)
}

#[expect(unsafe_code, reason = "a system call that no library wraps")]
fn element(
    command: libc::c_int,
    map: BorrowedFd<'_>,
    key: &[u8],
    value: &mut [u8],
) -> io::Result<bool> {
    let element = Element {
        map: map.as_raw_fd().cast_unsigned(),
        pad: 0,
        key: key.as_ptr() as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the kernel reads `element` and the key, and writes the value, for no longer than the call
    // lasts; all three are alive for that long, and as long as the map says by the contract above.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw const element,
            size_of::<Element>(),
        )
    };
    if done == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOENT) {
        Ok(false)
    } else {
        Err(error)
    }
}

/// What becomes of entries that are handed out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Batch {
    /// They stay.
    Read,
    /// They are deleted, in one step.
    Take,
}

/// The part of `union bpf_attr` that calls on many elements take.
#[repr(C)]
struct Elements {
    from: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Hands out up to `entries` entries of a hash table, whole buckets from one on (since Linux 5.6): how many they
/// were, and the next bucket with any, if there is one. `ENOSPC` where the first does not fit.
///
/// `keys` and `values` must have room for so many of the map's.
#[expect(unsafe_code, reason = "a system call that no library wraps")]
pub(super) fn batch(
    map: BorrowedFd<'_>,
    batch: Batch,
    from: Option<u32>,
    keys: &mut [u8],
    values: &mut [u8],
    entries: usize,
) -> io::Result<(usize, Option<u32>)> {
    let command = match batch {
        Batch::Read => LOOKUP_BATCH,
        Batch::Take => LOOKUP_AND_DELETE_BATCH,
    };
    let mut next = 0_u32;
    let mut elements = Elements {
        from: from.as_ref().map_or(0, |from| &raw const *from as u64),
        next: &raw mut next as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: u32::try_from(entries).map_err(io::Error::other)?,
        map: map.as_raw_fd().cast_unsigned(),
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `elements` and `from`, and writes `next`, the count, and no more keys and values
    // than that says, for which there is room by the contract above; all live for as long as the call lasts.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw mut elements,
            size_of::<Elements>(),
        )
    };
    let error = (done != 0).then(io::Error::last_os_error);
    let entries = usize::try_from(elements.count).map_err(io::Error::other)?;
    match error {
        None => Ok((entries, Some(next))),
        // The end.
        Some(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((entries, None)),
        Some(error) => Err(error),
    }
}
