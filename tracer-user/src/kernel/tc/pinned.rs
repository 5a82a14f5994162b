//! tcx programs by their links, where those are pinned on the bpffs: so whoever may not ask a device for its
//! programs (`CAP_NET_ADMIN`), nor a program for its name (`CAP_SYS_ADMIN`), knows them all the same. Calico pins
//! them as `tcx/DEVICE_ingress`, Cilium as `cilium/devices/DEVICE/links/PROGRAM`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::super::sys;
use super::{FRESH, ProgramInfo};

/// Files looked at, at most; Cilium pins some hundred.
const FILES: usize = 4096;
/// Folders below the bpffs' own.
const DEPTH: usize = 5;

/// `BPF_TCX_INGRESS`, <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/bpf.h>.
const INGRESS: u32 = 46;
/// `BPF_TCX_EGRESS`.
const EGRESS: u32 = 47;

/// The links pinned on a bpffs.
#[derive(Debug)]
pub(super) struct Pinned {
    root: PathBuf,
    /// Open, because the way to it may be closed once capabilities are given up.
    folder: Option<File>,
    read: Option<Instant>,
    links: HashMap<(u32, bool), Vec<ProgramInfo>>,
    /// Names of programs by their tags; `None` for those the kernel does not list.
    names: HashMap<String, Option<String>>,
}

impl Pinned {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            folder: File::open(root).ok(),
            read: None,
            links: HashMap::new(),
            names: HashMap::new(),
        }
    }

    /// The programs at a device's hook; in which order they are asked is not known.
    pub(super) fn at(&mut self, index: u32, ingress: bool) -> Vec<ProgramInfo> {
        if self.read.is_none_or(|read| read.elapsed() >= FRESH) {
            self.read = Some(Instant::now());
            self.look();
        }
        let found = self.links.get(&(index, ingress));
        found.cloned().unwrap_or_default()
    }

    fn look(&mut self) {
        self.links.clear();
        let root = match &self.folder {
            Some(folder) => PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())),
            None => self.root.clone(),
        };
        let mut paths = Vec::new();
        files(&root, DEPTH, &mut paths);
        let found: Vec<_> = paths
            .iter()
            .filter_map(|path| Some((path, link(path)?)))
            .collect();
        let unknown: Vec<_> = found
            .iter()
            .filter_map(|(_, link)| (!self.names.contains_key(&link.tag)).then_some(&*link.tag))
            .collect();
        if !unknown.is_empty() {
            let named = names(&unknown);
            let named = unknown.iter().map(|tag| {
                let name = named.get(*tag).cloned();
                ((*tag).to_owned(), name)
            });
            self.names.extend(named);
        }
        for (path, link) in found {
            let name = self.names.get(&link.tag).cloned().flatten();
            // Who pinned it at least.
            let name = name.or_else(|| Some(path.file_name()?.to_string_lossy().into_owned()));
            let program = ProgramInfo {
                id: link.program,
                name,
            };
            let at = self.links.entry((link.index, link.ingress)).or_default();
            if !at.contains(&program) {
                at.push(program);
            }
        }
    }
}

/// What is pinned in a folder and below.
fn files(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if found.len() >= FILES {
            return;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => files(&entry.path(), depth - 1, found),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

/// A program's link to a device.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    index: u32,
    ingress: bool,
    program: u32,
    tag: String,
}

/// The link pinned at a path; `None` for whatever else is.
fn link(path: &Path) -> Option<Link> {
    let link = sys::open_pinned(path).ok()?;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd())).ok()?;
    parse(&text)
}

/// From an fdinfo text.
/// <https://github.com/torvalds/linux/blob/v6.18/kernel/bpf/tcx.c> (`tcx_link_fdinfo`)
fn parse(text: &str) -> Option<Link> {
    let word = |key| {
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        value.split_ascii_whitespace().next()
    };
    if word("link_type")? != "tcx" {
        return None;
    }
    Some(Link {
        // 0 where the device is gone.
        index: word("ifindex")?.parse().ok().filter(|index| *index != 0)?,
        ingress: match word("attach_type")?.parse().ok()? {
            INGRESS => true,
            EGRESS => false,
            _ => return None,
        },
        program: word("prog_id")?.parse().ok()?,
        tag: word("prog_tag")?.to_owned(),
    })
}

/// The names of programs with these tags, by the kernel's list of symbols; not all kernels list them
/// (`net.core.bpf_jit_kallsyms`).
fn names(tags: &[&str]) -> HashMap<String, String> {
    File::open("/proc/kallsyms")
        .and_then(|file| names_in(BufReader::new(file), tags))
        .unwrap_or_default()
}

fn names_in(text: impl BufRead, tags: &[&str]) -> io::Result<HashMap<String, String>> {
    let mut names = HashMap::new();
    for line in text.lines() {
        let line = line?;
        // address t bpf_prog_TAG_NAME [bpf]
        let symbol = line.split_ascii_whitespace().nth(2);
        let Some(program) = symbol.and_then(|symbol| symbol.strip_prefix("bpf_prog_")) else {
            continue;
        };
        if let Some((tag, name)) = program.split_once('_')
            && tags.contains(&tag)
        {
            names.insert(tag.to_owned(), name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FDINFO: &str = "pos:\t0\nflags:\t02000000\nmnt_id:\t15\nino:\t1057\nlink_type:\ttcx\nlink_id:\t7\n\
        prog_tag:\t3b185187f1855c4c\nprog_id:\t42\nifindex:\t9\nattach_type:\t47 (egress)\n";

    #[test]
    fn a_links_text_says_whose_it_is_and_where() {
        let link = Link {
            index: 9,
            ingress: false,
            program: 42,
            tag: "3b185187f1855c4c".to_owned(),
        };
        assert_eq!(parse(FDINFO), Some(link));
        for other in [
            FDINFO.replace("tcx", "netkit"),
            FDINFO.replace("ifindex:\t9", "ifindex:\t0"),
            FDINFO.replace("47 (egress)", "55 (peer)"),
            String::new(),
        ] {
            assert_eq!(parse(&other), None, "{other}");
        }
    }

    #[test]
    fn a_tag_leads_to_a_name() {
        let list = "ffffffffc0000000 t nf_hook\t[nf]\n\
            0000000000000000 t bpf_prog_3b185187f1855c4c_cil_from_netdev\t[bpf]\n\
            0000000000000000 t bpf_prog_aaaabbbbccccdddd\t[bpf]\n";
        let names = names_in(list.as_bytes(), &["3b185187f1855c4c", "aaaabbbbccccdddd"]).unwrap();
        let wanted = ("3b185187f1855c4c".to_owned(), "cil_from_netdev".to_owned());
        assert_eq!(names, HashMap::from([wanted]));
    }
}
