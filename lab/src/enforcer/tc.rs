//! The incident's shape: an eBPF allow-list at the node's end of each pod's cable, which drops with
//! `TC_ACT_SHOT` and does not let the node itself through either.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData, PerCpuArray};
use aya::programs::links::FdLink;
use aya::programs::tc::{NlOptions, SchedClassifierLinkId, TcAttachOptions, qdisc_add_clsact};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use aya::{Ebpf, Pod};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use tracer_policy::model::Protocol;

use super::Enforcer;
use crate::kernel;
use crate::lab::Lab;
use crate::netns::Netns;
use crate::plan;
use crate::policy::{Allow, AllowList, Direction, PodFacts, Pods, Policies, mapped};

/// Entries a pod's allow-list may take; ranges of ports are written out.
const MAX_ENTRIES: usize = 60_000;

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Attach {
    /// By BPF links (Linux 6.6 and newer), as Calico does where it can.
    #[default]
    Tcx,
    /// As filters of a `clsact` qdisc.
    Clsact,
}

impl Attach {
    /// Whether the running kernel has it. Where it has not, a test of it is no test that cannot run.
    pub fn is_here(self) -> bool {
        match self {
            Self::Tcx => kernel::has_tcx(),
            Self::Clsact => true,
        }
    }
}

/// The tc enforcer.
#[derive(Debug, Default)]
pub struct Tc {
    attach: Attach,
    loaded: Option<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    ebpf: Ebpf,
    /// By the name of the interface.
    doors: BTreeMap<String, Door>,
}

/// The node's end of a pod's cable, with the programs at it.
#[derive(Debug)]
struct Door {
    index: u32,
    links: Links,
}

/// Programs' names and links; empty where the programs go with the interface's qdisc.
type Links = Vec<(&'static str, SchedClassifierLinkId)>;

/// Program, and where it sits.
const PROGRAMS: [(&str, TcAttachType); 2] = [
    ("lab_to_pod", TcAttachType::Egress),
    ("lab_from_pod", TcAttachType::Ingress),
];

impl Tc {
    /// Not in force until installed.
    pub fn new(attach: Attach) -> Self {
        Self {
            attach,
            loaded: None,
        }
    }

    /// Pins the links of tcx in a folder on a bpffs, as `DEVICE_ingress` and `DEVICE_egress`, where Calico has
    /// them. They stay there until the devices go.
    pub fn pin_links(&mut self, folder: &Path) -> Result<()> {
        let Some(loaded) = &mut self.loaded else {
            return Ok(());
        };
        for (interface, door) in &mut loaded.doors {
            for (program, link) in door.links.drain(..) {
                let side = match PROGRAMS.iter().find(|(name, _)| *name == program) {
                    Some((_, TcAttachType::Ingress)) => "ingress",
                    _ => "egress",
                };
                let link = classifier(&mut loaded.ebpf, program)?.take_link(link)?;
                FdLink::try_from(link)?.pin(folder.join(format!("{interface}_{side}")))?;
            }
        }
        Ok(())
    }

    /// Packets dropped on the way to pods (policy direction ingress) and from pods (egress).
    pub fn dropped_by_direction(&self) -> Result<(u64, u64)> {
        let Some(loaded) = &self.loaded else {
            return Ok((0, 0));
        };
        let map = loaded.ebpf.map("DROPPED").context("no map DROPPED")?;
        let counts = PerCpuArray::<_, u64>::try_from(map)?;
        let sum = |at| -> Result<u64> { Ok(counts.get(&at, 0)?.iter().sum()) };
        Ok((sum(0)?, sum(1)?))
    }
}

impl Enforcer for Tc {
    fn name(&self) -> &'static str {
        "tc"
    }

    fn sync(&mut self, node: &Netns, pods: &Pods, policies: &Policies) -> Result<()> {
        let pods = pods.as_slice();
        let list = AllowList::new(&policies.resolve(pods)?, pods);
        let mut loaded = match self.loaded.take() {
            Some(loaded) => loaded,
            None => Loaded::new()?,
        };
        let followed = node.enter(|| loaded.follow(self.attach, pods))?;
        let loaded = self.loaded.insert(loaded);
        followed?;
        loaded.replace(&list, pods)
    }

    fn dropped(&self, _: &Lab) -> Result<u64> {
        let (to_pods, from_pods) = self.dropped_by_direction()?;
        Ok(to_pods + from_pods)
    }

    fn remove(&mut self, lab: &Lab) -> Result<()> {
        let Some(mut loaded) = self.loaded.take() else {
            return Ok(());
        };
        for (interface, door) in loaded.doors {
            for (program, link) in door.links {
                classifier(&mut loaded.ebpf, program)?.detach(link)?;
            }
            if self.attach == Attach::Clsact {
                let args = ["qdisc", "del", "dev", &interface, "clsact"];
                lab.node().run("tc", &args)?;
            }
        }
        Ok(())
    }
}

impl Loaded {
    fn new() -> Result<Self> {
        let mut ebpf = crate::object::load()?;
        for (name, _) in PROGRAMS {
            let program = classifier(&mut ebpf, name)?;
            program
                .load()
                .with_context(|| format!("cannot load {name}"))?;
        }
        write_services(&mut ebpf)?;
        Ok(Self {
            ebpf,
            doors: BTreeMap::new(),
        })
    }

    /// Attaches to the cables that are new, and lets go of those whose pods are gone; to be called inside
    /// the node's namespace.
    fn follow(&mut self, attach: Attach, pods: &[PodFacts]) -> Result<()> {
        let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
        let mut old = std::mem::take(&mut self.doors);
        for cable in pods.iter().filter_map(|pod| pod.cable.as_ref()) {
            let index = name_to_index(&socket, cable)
                .with_context(|| format!("no interface {cable} on the node"))?;
            let door = match old.remove(cable) {
                Some(door) if door.index == index => door,
                _ => Door {
                    index,
                    links: self.attach(attach, cable)?,
                },
            };
            self.doors.insert(cable.clone(), door);
        }
        for (program, link) in old.into_values().flat_map(|door| door.links) {
            classifier(&mut self.ebpf, program)?.detach(link)?;
        }
        Ok(())
    }

    fn attach(&mut self, attach: Attach, interface: &str) -> Result<Links> {
        if attach == Attach::Clsact {
            qdisc_add_clsact(interface).with_context(|| format!("no clsact on {interface}"))?;
        }
        let mut links = Vec::new();
        for (name, side) in PROGRAMS {
            let options = match attach {
                Attach::Tcx => TcAttachOptions::TcxOrder(LinkOrder::default()),
                Attach::Clsact => TcAttachOptions::Netlink(NlOptions::default()),
            };
            let program = classifier(&mut self.ebpf, name)?;
            let link = program
                .attach_with_options(interface, side, options)
                .with_context(|| format!("cannot attach {name} to {interface}"))?;
            match attach {
                Attach::Tcx => links.push((name, link)),
                // aya would take the filter out by netlink from whatever namespace the enforcer
                // is dropped in. It goes with the qdisc instead.
                Attach::Clsact => std::mem::forget(program.take_link(link)?),
            }
        }
        Ok(links)
    }

    /// Writes the allow-list, then says who is isolated, then forgets the flows of the old one.
    fn replace(&mut self, list: &AllowList, pods: &[PodFacts]) -> Result<()> {
        let interface = |pod: usize| {
            let cable = pods.get(pod)?.cable.as_ref()?;
            self.doors.get(cable).map(|door| door.index)
        };
        let mut wanted = Vec::new();
        for allow in &list.allows {
            if let Some(interface) = interface(allow.pod) {
                wanted.extend(keys(interface, allow));
            }
        }
        if wanted.len() > MAX_ENTRIES {
            bail!(
                "the policies take {} allow-list entries, more than the {MAX_ENTRIES} there is room for",
                wanted.len()
            );
        }
        let mut isolated: BTreeMap<u32, u8> =
            self.doors.values().map(|door| (door.index, 0)).collect();
        for &(pod, direction) in &list.isolated {
            if let Some(bits) = interface(pod).and_then(|index| isolated.get_mut(&index)) {
                *bits |= bit(direction);
            }
        }

        let map = self.ebpf.map_mut("ALLOW").context("no map ALLOW")?;
        let mut allow = LpmTrie::<&mut MapData, [u8; 24], u8>::try_from(map)?;
        let present = allow.keys().collect::<Result<Vec<_>, _>>()?;
        let same = |a: &Key<[u8; 24]>, b: &Key<[u8; 24]>| {
            a.prefix_len() == b.prefix_len() && a.data() == b.data()
        };
        for key in &wanted {
            allow
                .insert(key, 1, 0)
                .context("cannot write the allow-list")?;
        }
        for key in present {
            if !wanted.iter().any(|kept| same(kept, &key)) {
                allow.remove(&key)?;
            }
        }
        let map = self.ebpf.map_mut("ISOLATED").context("no map ISOLATED")?;
        let mut map = HashMap::<&mut MapData, u32, u8>::try_from(map)?;
        for interface in map.keys().collect::<Result<Vec<_>, _>>()? {
            if !isolated.contains_key(&interface) {
                map.remove(&interface)?;
            }
        }
        for (interface, bits) in isolated {
            map.insert(interface, bits, 0)?;
        }
        let map = self.ebpf.map_mut("FLOWS").context("no map FLOWS")?;
        clear(&mut HashMap::<&mut MapData, [u8; 28], u8>::try_from(map)?)
    }
}

/// Tells the programs what stands behind the Services, so that they judge that.
fn write_services(ebpf: &mut Ebpf) -> Result<()> {
    let map = ebpf.map_mut("SERVICES").context("no map SERVICES")?;
    let mut map = HashMap::<&mut MapData, [u8; 20], [u8; 18]>::try_from(map)?;
    for translation in plan::service_translations() {
        let (service, endpoint) = (translation.service, translation.endpoint);
        let mut key = [0; 20];
        key[..16].copy_from_slice(&mapped(&service.ip().into()).0);
        key[16..18].copy_from_slice(&service.port().to_be_bytes());
        key[18] = translation.protocol.number();
        let mut value = [0; 18];
        value[..16].copy_from_slice(&mapped(&endpoint.ip().into()).0);
        value[16..].copy_from_slice(&endpoint.port().to_be_bytes());
        map.insert(key, value, 0)?;
    }
    Ok(())
}

fn clear<K: Pod, V: Pod>(map: &mut HashMap<&mut MapData, K, V>) -> Result<()> {
    for key in map.keys().collect::<Result<Vec<_>, _>>()? {
        // It may have been evicted meanwhile.
        match map.remove(&key) {
            Ok(()) | Err(aya::maps::MapError::KeyNotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// [`Direction`] as the programs' `Side` bits.
const fn bit(direction: Direction) -> u8 {
    match direction {
        Direction::Ingress => 1,
        Direction::Egress => 2,
    }
}

/// An entry's keys in map `ALLOW`, one for each port; the layout is in `lab/ebpf/src/maps.rs`.
fn keys(interface: u32, allow: &Allow) -> Vec<Key<[u8; 24]>> {
    let (address, bits) = mapped(&allow.peer);
    let mut data = [0; 24];
    data[..4].copy_from_slice(&interface.to_ne_bytes());
    data[4] = bit(allow.direction);
    data[5] = allow.protocol.map_or(0, Protocol::number);
    data[8..].copy_from_slice(&address);
    let prefix = 64 + u32::from(bits);
    match allow.ports {
        None => vec![Key::new(prefix, data)],
        Some((first, last)) => (first..=last)
            .map(|port| {
                data[6..8].copy_from_slice(&port.to_be_bytes());
                Key::new(prefix, data)
            })
            .collect(),
    }
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name} in the tc enforcer's object"))?;
    Ok(program.try_into()?)
}
