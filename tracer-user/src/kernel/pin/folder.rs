//! The folders on the bpffs.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, FsWord, flock, statfs};
use rustix::mount::{MountFlags, mount};
use tracer_common::ABI;

use super::super::error::Error;
use super::super::parts::Parts;
use super::handover::is_retired;
use crate::fingerprint::fingerprint;

/// `BPF_FS_MAGIC`, <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/magic.h>.
const BPF_FS: FsWord = 0xcafe_4a11;

/// Where systemd and every CNI mount it.
const USUAL: &str = "/sys/fs/bpf";

/// Where an agent keeps what stays in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// A folder on a bpffs.
    pub root: PathBuf,
    /// What tells this agent from others of the node.
    pub agent: String,
}

/// The name of the map that an agent's generations share.
const CLAIMS: &str = "claims";

/// An agent's own folder, which no other process has while this is alive.
#[derive(Debug)]
pub(in super::super) struct Home {
    folder: PathBuf,
    _lock: File,
}

/// Programs and maps that were made together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Generation {
    /// Nanoseconds since 1970, when it was made; so they sort by age.
    created: u64,
    /// The version of its layouts.
    abi: u16,
    /// Of programs and settings.
    fingerprint: u64,
}

impl Generation {
    /// A generation made at this time, or as much later as it takes to be the youngest: clocks are set back.
    fn new(fingerprint: u64, now: Timestamp, others: impl Iterator<Item = Self>) -> Self {
        let now = u64::try_from(now.as_nanosecond()).unwrap_or(0);
        let youngest = others.map(|other| other.created).max();
        Self {
            created: youngest.map_or(now, |youngest| now.max(youngest.saturating_add(1))),
            abi: ABI,
            fingerprint,
        }
    }

    /// Its folder's name.
    pub(in super::super) fn name(&self) -> String {
        let Self {
            created,
            abi,
            fingerprint,
        } = self;
        format!("{created:020}-v{abi}-{fingerprint:016x}")
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let generation = Self {
            created: parts.next()?.parse().ok()?,
            abi: parts.next()?.strip_prefix('v')?.parse().ok()?,
            fingerprint: u64::from_str_radix(parts.next()?, 16).ok()?,
        };
        parts.next().is_none().then_some(generation)
    }

    /// Whether this build knows the layout of its tables.
    pub(in super::super) const fn is_readable(&self) -> bool {
        self.abi == ABI
    }

    /// Whether it can be gone on with by programs of this fingerprint.
    pub(in super::super) fn fits(&self, fingerprint: u64) -> bool {
        self.is_readable() && self.fingerprint == fingerprint
    }
}

impl Home {
    /// Makes the agent's folder where there is none, and takes it. Folders that agents of other names
    /// left behind are removed.
    ///
    /// # Errors
    /// One sentence, for whoever wonders why nothing is kept.
    pub(in super::super) fn open(pin: &Pin) -> Result<Self, String> {
        ensure_bpffs(&pin.root)?;
        let folder = pin.root.join(folder_name(&pin.agent));
        let cannot = |error: io::Error| format!("{}: {error}", folder.display());
        fs::create_dir_all(&folder).map_err(cannot)?;
        let lock = lock(&folder)
            .map_err(cannot)?
            .ok_or_else(|| format!("{}: another agent has it", folder.display()))?;
        remove_strangers(&pin.root, &folder);
        Ok(Self {
            // By what is open: the path's own folders may be closed to us once capabilities are given up.
            folder: format!("/proc/self/fd/{}", lock.as_raw_fd()).into(),
            _lock: lock,
        })
    }

    /// What this agent left, oldest first. What was not finished is removed.
    pub(in super::super) fn generations(&self) -> Vec<Generation> {
        let mut generations = Vec::new();
        for (name, path) in folders(&self.folder) {
            match Generation::parse(&name) {
                Some(generation) if Parts::are_whole(&path) || is_retired(&path) => {
                    generations.push(generation);
                }
                _ => remove(&path),
            }
        }
        generations.sort();
        generations
    }

    /// A new generation's folder.
    pub(in super::super) fn make(&self, fingerprint: u64) -> io::Result<Generation> {
        let there = folders(&self.folder);
        let others = there.iter().filter_map(|(name, _)| Generation::parse(name));
        let generation = Generation::new(fingerprint, Timestamp::now(), others);
        fs::create_dir(self.path(&generation))?;
        Ok(generation)
    }

    pub(in super::super) fn path(&self, generation: &Generation) -> PathBuf {
        self.folder.join(generation.name())
    }

    /// Takes away what cannot be used, and says so.
    pub(in super::super) fn give_up(&self, generation: &Generation, error: &Error) {
        let name = generation.name();
        tracing::warn!(
            "what an earlier agent left as {name} cannot be read, and is removed with what was not told of it: {error}"
        );
        let path = self.path(generation);
        Parts::take_out(&path);
        remove(&path);
    }

    /// Where the map of claims is, which all generations share.
    pub(in super::super) fn claims(&self) -> PathBuf {
        self.folder.join(CLAIMS)
    }
}

fn remove_strangers(root: &Path, own: &Path) {
    for path in agents(root) {
        if path != own && matches!(lock(&path), Ok(Some(_))) {
            remove(&path);
        }
    }
}

/// What [`unpin`] has taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpinned {
    /// Agents whose pins they were.
    pub agents: usize,
    /// Those of them that are at work: they keep what they have until they end.
    pub at_work: usize,
}

/// Takes out of the kernel what agents pinned under `root`. What others keep there stays, and `root` with it.
///
/// # Errors
/// What the system says of the first folder that cannot be removed; where `root` is there and on no bpffs.
pub fn unpin(root: &Path) -> io::Result<Unpinned> {
    let mut unpinned = Unpinned::default();
    if !root.exists() {
        return Ok(unpinned);
    }
    if !is_bpffs(root) {
        return Err(io::Error::other(
            "it is not on a bpffs, so no agent has pinned anything there",
        ));
    }
    for path in agents(root) {
        unpinned.agents += 1;
        unpinned.at_work += usize::from(matches!(lock(&path), Ok(None)));
        try_remove(&path)?;
    }
    // Only where it is empty, and no mount of its own.
    match fs::remove_dir(root) {
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty | ErrorKind::ResourceBusy
            ) =>
        {
            Err(error)
        }
        _ => Ok(unpinned),
    }
}

/// Removes a folder of pins, links first: no program is left that counts into maps nobody has.
pub(in super::super) fn remove(path: &Path) {
    if let Err(error) = try_remove(path) {
        tracing::warn!(
            "cannot remove what was pinned at {}: {error}",
            path.display()
        );
    }
}

/// [`remove`], for those who can do something about it.
pub(in super::super) fn try_remove(path: &Path) -> io::Result<()> {
    for (_, folder) in folders(path) {
        try_remove(&folder)?;
    }
    let mut files: Vec<_> = fs::read_dir(path)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    files.sort_by_key(|file| !Parts::is_link(file));
    files.iter().try_for_each(fs::remove_file)?;
    fs::remove_dir(path)
}

/// The folders of agents: named as [`folder_name`] does, with nothing in them but what one keeps there. Others pin
/// under the same root, too.
fn agents(root: &Path) -> Vec<PathBuf> {
    let named = folders(root).into_iter().filter(|(name, _)| {
        name.len() == 16
            && name
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    });
    named
        .map(|(_, path)| path)
        .filter(|path| is_an_agents(path))
        .collect()
}

fn is_an_agents(path: &Path) -> bool {
    let Ok(mut entries) = fs::read_dir(path) else {
        return false;
    };
    entries.all(|entry| {
        entry.is_ok_and(|entry| {
            let name = entry.file_name();
            name == CLAIMS
                || name
                    .to_str()
                    .is_some_and(|name| Generation::parse(name).is_some())
        })
    })
}

fn folders(path: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            )
        })
        .collect()
}

/// Takes a folder; `None` where another process has it.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file = File::open(folder)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Mounts the kernel's bpffs at its usual place where nobody has.
fn ensure_bpffs(root: &Path) -> Result<(), String> {
    if is_bpffs(root) {
        return Ok(());
    }
    if root.starts_with(USUAL) && Path::new(USUAL).is_dir() {
        mount("bpf", USUAL, "bpf", MountFlags::empty(), None)
            .map_err(|error| format!("no bpffs at {USUAL}, and it cannot be mounted: {error}"))?;
        return Ok(());
    }
    Err(format!("{} is not on a bpffs", root.display()))
}

/// Whether a path, or what of it exists, is on a bpffs.
fn is_bpffs(path: &Path) -> bool {
    path.ancestors()
        .find_map(|path| statfs(path).ok())
        .is_some_and(|found| found.f_type == BPF_FS)
}

/// A name without what a bpffs refuses, and the same for the same agent.
fn folder_name(agent: &str) -> String {
    format!("{:016x}", fingerprint([agent.as_bytes()]))
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    #[test]
    fn a_generation_is_found_again_by_its_name() {
        let programs = fingerprint([b"programs".as_slice()]);
        let generation = Generation::new(programs, Timestamp::now(), iter::empty());
        let name = generation.name();
        assert!(!name.contains('.'), "{name}");
        assert_eq!(Generation::parse(&name), Some(generation.clone()));
        assert!(generation.fits(fingerprint([b"programs".as_slice()])));
        assert!(!generation.fits(fingerprint([b"other".as_slice()])));
        for other in ["", "claims", "1-v2", "1-v2-zz", "1-2-3", "1-v2-3-4"] {
            assert_eq!(Generation::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_new_one_is_the_youngest_whatever_the_clock_says() {
        let [early, late] = [1_000, 2_000].map(|second| Timestamp::from_second(second).unwrap());
        let first = Generation::new(1, late, iter::empty());
        let second = Generation::new(2, early, iter::once(first.clone()));
        let third = Generation::new(3, late, [first.clone(), second.clone()].into_iter());
        assert!(first < second && second < third);
        assert!(first.name() < second.name() && second.name() < third.name());
    }

    #[test]
    fn older_generations_come_first() {
        let [old, new] = [2, 10].map(|created| Generation {
            created,
            abi: 9,
            fingerprint: 0,
        });
        assert!(old < new);
        assert!(old.name() < new.name(), "as a listing shows them");
    }

    #[test]
    fn parts_that_are_cut_elsewhere_are_other_parts() {
        let one = fingerprint([b"ab".as_slice(), b"c"]);
        assert_ne!(one, fingerprint([b"a".as_slice(), b"bc"]));
    }

    #[test]
    fn a_folder_elsewhere_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let pin = Pin {
            root: folder.path().to_owned(),
            agent: "node-1".into(),
        };
        let said = Home::open(&pin).unwrap_err();
        assert!(said.ends_with("is not on a bpffs"), "{said}");
    }
}
