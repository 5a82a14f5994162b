//! What user space holds of the programs: freshly loaded, or found pinned.

use std::os::fd::AsFd;
use std::path::Path;
use std::{fs, io};

use aya::Ebpf;
use aya::maps::{Map, MapData};
use aya::programs::links::{FdLink, PinnedLink};
use aya_log::EbpfLogger;

use super::answers::{self, Listener};
use super::attach::{Attached, HOOKS};
use super::error::{Error, boxed};
use super::sys;

/// The programs' maps that user space works with.
pub(super) struct Maps {
    pub(super) events: Map,
    pub(super) flows: Map,
    pub(super) overflow: Map,
    pub(super) state: Map,
    pub(super) mode: Map,
}

/// Maps, and programs on their hooks.
pub(super) struct Parts {
    pub(super) maps: Maps,
    pub(super) attached: Vec<Attached>,
    pub(super) listeners: Vec<Listener>,
    pub(super) log: Log,
}

/// Hands on what the programs say about themselves.
pub(super) type Log = Box<dyn FnMut() + Send>;

impl Maps {
    /// Out of freshly loaded programs.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let mut take = |name: &str| {
            ebpf.take_map(name)
                .ok_or_else(|| Error::Load(format!("the object has no map `{name}`").into()))
        };
        Ok(Self {
            events: take("EVENTS")?,
            flows: take("FLOWS")?,
            overflow: take("OVERFLOW")?,
            state: take("STATE")?,
            mode: take("MODE")?,
        })
    }

    fn named(&self) -> [(&'static str, &Map); 5] {
        [
            ("events", &self.events),
            ("flows", &self.flows),
            ("overflow", &self.overflow),
            ("state", &self.state),
            ("mode", &self.mode),
        ]
    }

    pub(super) fn from_pins(folder: &Path) -> Result<Self, Error> {
        let open = |name| {
            let data = MapData::from_pin(folder.join(name)).map_err(boxed)?;
            Map::from_map_data(data).map_err(boxed)
        };
        Ok(Self {
            events: open("events")?,
            flows: open("flows")?,
            overflow: open("overflow")?,
            state: open("state")?,
            mode: open("mode")?,
        })
    }
}

/// How a program that hangs on its hook is called in its folder, before its name. The name of
/// a program alone is the program.
const LINK: &str = "link_";

impl Parts {
    /// Pins all of it in a folder; the link that counts comes last, and marks the folder as whole.
    pub(super) fn pin(self, folder: &Path) -> Result<Self, Error> {
        for (name, map) in self.maps.named() {
            map.pin(folder.join(name)).map_err(boxed)?;
        }
        answers::pin(&self.listeners, folder).map_err(|source| unpinned(folder, source))?;
        let mut attached = Vec::new();
        for one in self.attached {
            sys::pin(one.program.as_fd(), &folder.join(one.name))
                .map_err(|source| unpinned(folder, source))?;
            let link = one
                .link
                .pin(folder.join(format!("{LINK}{}", one.name)))
                .map_err(boxed)?;
            attached.push(Attached {
                link: FdLink::from(link),
                ..one
            });
        }
        Ok(Self { attached, ..self })
    }

    /// Whether a pin is that of a link.
    pub(super) fn is_link(path: &Path) -> bool {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(LINK))
    }

    /// Takes the programs in a folder off their hooks; the maps stay.
    pub(super) fn take_out(folder: &Path) {
        for name in HOOKS.iter().flat_map(|hook| [hook.btf, hook.raw]) {
            let link = folder.join(format!("{LINK}{name}"));
            if let Err(error) = fs::remove_file(&link)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("cannot take out {}: {error}", link.display());
            }
        }
    }

    /// Whether a folder's pins are whole.
    pub(super) fn are_whole(folder: &Path) -> bool {
        let last = HOOKS[HOOKS.len() - 1];
        [last.btf, last.raw]
            .iter()
            .any(|name| folder.join(format!("{LINK}{name}")).exists())
    }

    /// What is pinned in a folder.
    pub(super) fn from_pins(folder: &Path) -> Result<Self, Error> {
        let maps = Maps::from_pins(folder)?;
        let mut attached = Vec::new();
        let mut log: Log = Box::new(|| {});
        for hook in HOOKS {
            for name in [hook.btf, hook.raw] {
                let path = folder.join(format!("{LINK}{name}"));
                if !path.exists() {
                    continue;
                }
                let link: FdLink = PinnedLink::from_pin(path).map_err(boxed)?.into();
                let program = sys::open_pinned(&folder.join(name))
                    .map_err(|source| unpinned(folder, source))?;
                let id = link.info().map_err(boxed)?.program_id();
                // Needs CAP_SYS_ADMIN; what the programs say is no loss.
                if let Ok(mut logger) = EbpfLogger::init_from_id(id) {
                    log = Box::new(move || logger.flush());
                }
                attached.push(Attached {
                    name,
                    program,
                    link,
                });
            }
        }
        Ok(Self {
            maps,
            attached,
            listeners: answers::from_pins(folder),
            log,
        })
    }
}

fn unpinned(folder: &Path, source: io::Error) -> Error {
    Error::Io {
        action: "pin the programs in",
        path: Some(folder.to_owned()),
        source,
    }
}
