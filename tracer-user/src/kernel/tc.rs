//! Whose programs stand at a device's tc hooks: so the datapath that dropped a packet there has a name.

mod pinned;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use self::pinned::Pinned;
use super::device::own_netns;
use crate::decode::{Hook, RawDrop};
use crate::record::ProgramInfo;

/// How long an answer is taken for true: programs are replaced when a CNI is updated.
const FRESH: Duration = Duration::from_secs(30);
/// Devices remembered, at most; a node has some hundred.
const DEVICES: usize = 4096;
/// How long the kernel may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks programs up, and remembers them for a while.
#[derive(Debug)]
pub struct TcPrograms {
    /// The network namespace that we can look into: our own.
    netns: Option<u32>,
    seen: HashMap<(u32, bool), Seen>,
    pinned: Pinned,
}

#[derive(Debug)]
struct Seen {
    at: Instant,
    programs: Vec<ProgramInfo>,
}

impl TcPrograms {
    /// For devices in the network namespace of this process. `bpffs`: where links may be pinned.
    pub fn new(bpffs: &Path) -> Self {
        Self {
            netns: own_netns(),
            seen: HashMap::new(),
            pinned: Pinned::new(bpffs),
        }
    }

    /// The programs at the tc hook where a packet was dropped, in the order they are asked as far as that is
    /// known; none where it was not dropped at one, or it cannot be told.
    pub fn at(&mut self, drop: &RawDrop) -> Vec<ProgramInfo> {
        let ingress = match drop.hook {
            Some(Hook::TcIngress) => true,
            Some(Hook::TcEgress) => false,
            _ => return Vec::new(),
        };
        let Some((index, name)) = &drop.interface else {
            return Vec::new();
        };
        if drop.netns.is_none() || drop.netns != self.netns {
            return Vec::new();
        }
        let key = (*index, ingress);
        if let Some(seen) = self.seen.get(&key)
            && seen.at.elapsed() < FRESH
        {
            return seen.programs.clone();
        }
        if self.seen.len() >= DEVICES {
            self.seen.retain(|_, seen| seen.at.elapsed() < FRESH);
        }
        let programs = self.programs(*index, name, ingress);
        if self.seen.len() < DEVICES {
            let at = Instant::now();
            let programs = programs.clone();
            self.seen.insert(key, Seen { at, programs });
        }
        programs
    }

    /// Those of tcx run first, <https://docs.kernel.org/bpf/bpf_prog_run.html>.
    fn programs(&mut self, index: u32, name: &str, ingress: bool) -> Vec<ProgramInfo> {
        let mut programs = match tcx(name, ingress) {
            Ok(programs) => programs,
            Err(error) => {
                tracing::debug!(device = name, %error, "its tcx programs cannot be listed");
                self.pinned.at(index, ingress)
            }
        };
        match filters(index, ingress) {
            Ok(filters) => programs.extend(filters),
            Err(error) => {
                tracing::debug!(device = name, %error, "its tc filters cannot be listed");
            }
        }
        programs
    }
}

/// Needs `CAP_NET_ADMIN`, and `CAP_SYS_ADMIN` for the names.
fn tcx(device: &str, ingress: bool) -> Result<Vec<ProgramInfo>, ProgramError> {
    let side = if ingress {
        TcAttachType::Ingress
    } else {
        TcAttachType::Egress
    };
    let (_, programs) = SchedClassifier::query_tcx(device, side)?;
    let programs = programs.iter().map(|program| ProgramInfo {
        id: program.id(),
        name: program.name_as_str().map(str::to_owned),
    });
    Ok(programs.collect())
}

/// BPF filters of the clsact qdisc, `tc filter show dev DEVICE ingress`.
fn filters(index: u32, ingress: bool) -> io::Result<Vec<ProgramInfo>> {
    let invalid = |error: netlink_packet_core::DecodeError| {
        io::Error::new(io::ErrorKind::InvalidData, error.to_string())
    };
    let index = i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut message = TcMessage::with_index(index);
    message.header.parent = TcHandle {
        major: TcHandle::CLSACT.major,
        minor: if ingress {
            TcHandle::MIN_INGRESS
        } else {
            TcHandle::MIN_EGRESS
        },
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut request = NetlinkMessage::new(
        header,
        NetlinkPayload::from(RouteNetlinkMessage::GetTrafficFilter(message)),
    );
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);

    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Recv,
        Some(PATIENCE),
    )?;
    socket.send(&bytes, 0)?;
    let mut programs = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = &answer[..];
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(invalid)?;
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            rest = rest.get(length.max(1).next_multiple_of(4)..).unwrap_or(&[]);
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(programs),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewTrafficFilter(filter)) => {
                    programs.extend(program(&filter));
                }
                _ => {}
            }
        }
    }
}

fn program(filter: &TcMessage) -> Option<ProgramInfo> {
    let (mut id, mut name) = (None, None);
    let attributes = filter.attributes.iter();
    let options = attributes.filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    for option in options.flatten() {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(own)) => id = Some(*own),
            TcOption::Bpf(TcFilterBpfOption::ProgName(own)) => name = Some(own.clone()),
            _ => {}
        }
    }
    Some(ProgramInfo { id: id?, name })
}
