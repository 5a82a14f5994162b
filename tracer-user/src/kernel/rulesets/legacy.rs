//! The rules of `x_tables` (`iptables-legacy`), by the socket options that `iptables` itself reads them with.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::graph::Chain;
use super::xt;
use crate::decode::Point;
use crate::enforcer::{Falls, Family};

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`, and IPv6's, which are the same.
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/netfilter_ipv4/ip_tables.h>
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;

/// `XT_TABLE_MAXNAMELEN`, and a target's name (`XT_EXTENSION_MAXNAMELEN`).
const TABLE_NAME: usize = 32;
const NAME: usize = 29;
/// Header of a match or a target: size, name, revision.
const EXTENSION: usize = 32;
/// Where the entries begin behind their table's name and size.
const ENTRIES: usize = 40;
/// Largest table that is looked at, in bytes.
const LARGEST: usize = 64 << 20;

/// `struct ipt_getinfo`.
#[repr(C)]
struct Info {
    name: [u8; TABLE_NAME],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    entries: u32,
    size: u32,
}

/// The two families, and where their entries say what.
struct Kind {
    family: Family,
    address: AddressFamily,
    level: libc::c_int,
    names: &'static str,
    /// Bytes of an entry before its matches, and where it says where its target is, and how long it is.
    head: usize,
    target: usize,
}

const KINDS: [Kind; 2] = [
    Kind {
        family: Family::Ip,
        address: AddressFamily::INET,
        level: libc::SOL_IP,
        names: "/proc/self/net/ip_tables_names",
        head: 112,
        target: 88,
    },
    Kind {
        family: Family::Ip6,
        address: AddressFamily::INET6,
        level: libc::SOL_IPV6,
        names: "/proc/self/net/ip6_tables_names",
        head: 168,
        target: 140,
    },
];

/// All chains of this network namespace. Needs `CAP_NET_ADMIN`. Only tables that there are already are looked at: the
/// kernel would make others for who asks.
pub(super) fn chains() -> io::Result<Vec<Chain>> {
    let mut chains = Vec::new();
    for kind in &KINDS {
        // Where there is no such file there are no such tables.
        let tables = fs::read_to_string(kind.names).unwrap_or_default();
        let mut tables = tables.lines().peekable();
        if tables.peek().is_none() {
            continue;
        }
        // Asking needs a raw socket's options, not a raw socket.
        let socket = socket_with(
            kind.address,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(ipproto::UDP),
        )?;
        for table in tables {
            chains.extend(read(kind, &socket, table)?);
        }
    }
    Ok(chains)
}

fn read(kind: &Kind, socket: &OwnedFd, table: &str) -> io::Result<Vec<Chain>> {
    let mut name = [0; TABLE_NAME];
    let Some(room) = name
        .get_mut(..table.len())
        .filter(|room| room.len() < TABLE_NAME)
    else {
        return Ok(Vec::new());
    };
    room.copy_from_slice(table.as_bytes());
    let mut info = Info {
        name,
        valid_hooks: 0,
        hook_entry: [0; 5],
        underflow: [0; 5],
        entries: 0,
        size: 0,
    };
    let bytes: *mut Info = &raw mut info;
    // SAFETY: the option fills in such a struct, and is told how long it is.
    #[expect(unsafe_code, reason = "a socket option that no library knows")]
    unsafe {
        option(kind, socket, GET_INFO, bytes.cast(), size_of::<Info>())?;
    }
    let size = usize::try_from(info.size).map_err(io::Error::other)?;
    if size > LARGEST {
        return Err(io::Error::other(format!(
            "table {table} has {size} bytes of rules"
        )));
    }
    let mut bytes = vec![0; ENTRIES + size];
    bytes[..TABLE_NAME].copy_from_slice(&name);
    bytes[TABLE_NAME..TABLE_NAME + 4].copy_from_slice(&info.size.to_ne_bytes());
    // SAFETY: the option fills in as many bytes as it is told there are. Where the table has grown since, it refuses.
    #[expect(unsafe_code, reason = "a socket option that no library knows")]
    unsafe {
        option(
            kind,
            socket,
            GET_ENTRIES,
            bytes.as_mut_ptr().cast(),
            bytes.len(),
        )?;
    }
    Ok(parse(kind, table, &info, &bytes[ENTRIES..]))
}

/// # Safety
///
/// `value` is `size` bytes that the option may write.
#[expect(unsafe_code, reason = "a socket option that no library knows")]
unsafe fn option(
    kind: &Kind,
    socket: &OwnedFd,
    name: libc::c_int,
    value: *mut libc::c_void,
    size: usize,
) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(size).map_err(io::Error::other)?;
    // SAFETY: the caller's.
    let done =
        unsafe { libc::getsockopt(socket.as_raw_fd(), kind.level, name, value, &raw mut length) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The hooks in the order of their numbers.
const HOOKS: [(Point, &str); 5] = [
    (Point::Prerouting, "PREROUTING"),
    (Point::Input, "INPUT"),
    (Point::Forward, "FORWARD"),
    (Point::Output, "OUTPUT"),
    (Point::Postrouting, "POSTROUTING"),
];

/// What an entry does.
enum Does {
    /// A chain of the user's begins.
    Begins(String),
    /// It goes on at another entry.
    Jumps(usize),
    Falls(Falls),
    Other,
}

fn parse(kind: &Kind, table: &str, info: &Info, entries: &[u8]) -> Vec<Chain> {
    let mut chains = Vec::<Chain>::new();
    // Where each chain's first rule is.
    let mut starts = Vec::<(usize, String)>::new();
    let mut jumps = Vec::<(usize, usize)>::new();
    let mut at = 0;
    while let Some((does, invalid, length)) = entry(kind, entries.get(at..).unwrap_or_default()) {
        let base = HOOKS.iter().enumerate().find(|(number, _)| {
            info.valid_hooks & 1 << number != 0
                && usize::try_from(info.hook_entry[*number]) == Ok(at)
        });
        if let Some((_, (point, name))) = base {
            let mut chain = Chain::new(kind.family, table.to_owned(), (*name).to_owned());
            chain.hook = Some(*point);
            chains.push(chain);
        }
        match does {
            Does::Begins(name) => {
                starts.push((at + length, name.clone()));
                chains.push(Chain::new(kind.family, table.to_owned(), name));
            }
            Does::Jumps(to) => jumps.push((chains.len().saturating_sub(1), to)),
            Does::Falls(falls) => {
                if let Some(chain) = chains.last_mut() {
                    let falls = if invalid && falls.silent {
                        Falls {
                            invalid: true,
                            ..Falls::default()
                        }
                    } else {
                        falls
                    };
                    chain.falls = chain.falls.or(falls);
                }
            }
            Does::Other => {}
        }
        at += length;
    }
    for (from, to) in jumps {
        let called = starts.iter().find(|(start, _)| *start == to);
        if let (Some(chain), Some((_, name))) = (chains.get_mut(from), called) {
            chain.calls.push(name.clone());
        }
    }
    chains
}

/// What the first entry does, whether of invalid packets only, and how long it is.
fn entry(kind: &Kind, bytes: &[u8]) -> Option<(Does, bool, usize)> {
    let offset = |at: usize| {
        let bytes = bytes.get(at..)?.first_chunk()?;
        Some(usize::from(u16::from_ne_bytes(*bytes)))
    };
    let (target, length) = (offset(kind.target)?, offset(kind.target + 2)?);
    if length < kind.head + EXTENSION {
        return None;
    }
    let mut invalid = false;
    let mut at = kind.head;
    while at + EXTENSION <= target {
        let size = offset(at)?;
        if size < EXTENSION {
            return None;
        }
        let info = bytes.get(at + EXTENSION..at + size)?;
        invalid |= xt::is_of_invalid(&name(bytes.get(at + 2..)?), info);
        at += size;
    }
    let info = bytes.get(target + EXTENSION..length)?;
    let does = match name(bytes.get(target + 2..)?).as_str() {
        "ERROR" => Does::Begins(name(info)),
        "" => match i32::from_ne_bytes(*info.first_chunk()?) {
            // `-NF_DROP - 1`
            -1 => Does::Falls(Falls {
                silent: true,
                ..Falls::default()
            }),
            verdict => usize::try_from(verdict).map_or(Does::Other, Does::Jumps),
        },
        target => xt::falls(target, info, kind.family).map_or(Does::Other, Does::Falls),
    };
    Some((does, invalid, length))
}

/// A name that a NUL ends.
fn name(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(NAME)];
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}
