//! Addresses of kernel code to names, by `/proc/kallsyms`.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the kernel lists its symbols.
const KALLSYMS: &str = "/proc/kallsyms";

/// A function is taken to be no longer than this; past it an address belongs to nobody known.
const LONGEST: u64 = 0x1_0000;

/// The functions of the kernel and its modules at one time.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    /// Address, and where the name is in `names`, by address.
    table: Vec<(u64, u32)>,
    /// The names, each ended by a newline.
    names: String,
    /// First and last function of the kernel proper.
    core: Option<(u64, u64)>,
}

impl Symbols {
    /// Parses the text of `/proc/kallsyms`, a line at a time: all of it is longer than what is kept.
    ///
    /// The table is empty where the kernel withholds addresses (`kernel.kptr_restrict`): it then
    /// prints zeros. Fails where the text cannot be read.
    pub fn parse(mut text: impl BufRead) -> io::Result<Self> {
        let mut symbols = Self::default();
        let mut line = String::new();
        while text.read_line(&mut line)? > 0 {
            if !symbols.add(&line) {
                break;
            }
            line.clear();
        }
        // Stable: of several names at one address the first listed stays first.
        symbols.table.sort_by_key(|(address, _)| *address);
        symbols.table.dedup_by_key(|(address, _)| *address);
        symbols.table.shrink_to_fit();
        symbols.names.shrink_to_fit();
        Ok(symbols)
    }

    /// Takes a function's line; `false` where there is no room for another.
    fn add(&mut self, line: &str) -> bool {
        // address type name [module]
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some("t" | "T" | "w" | "W"), Some(name)) =
            (words.next(), words.next(), words.next())
        else {
            return true;
        };
        // The padding before a function is nobody's address, and half of the list.
        if name.starts_with("__pfx_") {
            return true;
        }
        let Ok(address @ 1..) = u64::from_str_radix(address, 16) else {
            return true;
        };
        let Ok(at) = u32::try_from(self.names.len()) else {
            return false;
        };
        self.table.push((address, at));
        self.names.push_str(name);
        self.names.push('\n');
        if words.next().is_none() {
            let (first, last) = self.core.get_or_insert((address, address));
            *first = address.min(*first);
            *last = address.max(*last);
        }
        true
    }

    /// Whether the kernel withholds its symbols.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// `symbol+0xoffset`.
    pub fn name(&self, address: u64) -> Option<String> {
        let after = self.table.partition_point(|(start, _)| *start <= address);
        let (start, at) = self.table[after.checked_sub(1)?];
        let offset = address - start;
        let name = self.names[at as usize..].lines().next()?;
        (offset < LONGEST).then(|| format!("{name}+{offset:#x}"))
    }

    /// The first function of these and those of them right behind it.
    pub(super) fn range(&self, names: &[&str]) -> Option<Range> {
        let is_one = |at: u32| {
            let name = self.names[at as usize..].lines().next();
            // The compiler's endings: a function may have been cut (`.cold`), or made fit (`.constprop.0`).
            let (function, ending) =
                name.map_or(("", ""), |name| name.split_once('.').unwrap_or((name, "")));
            names.contains(&function) && ending != "cold"
        };
        let mut table = self.table.iter();
        let (start, _) = table.find(|(_, at)| is_one(*at))?;
        let (end, _) = table.find(|(_, at)| !is_one(*at))?;
        Some(Range {
            start: *start,
            size: end - start,
        })
    }

    /// Whether the address is the kernel proper's, which never moves.
    fn is_core(&self, address: u64) -> bool {
        self.core
            .is_some_and(|(first, last)| (first..last + LONGEST).contains(&address))
    }
}

/// The running kernel's symbols. Modules come and go: an address outside the kernel proper has the
/// list read again.
#[derive(Clone, Debug)]
pub(super) struct LiveSymbols {
    path: PathBuf,
    symbols: Arc<Symbols>,
}

/// A piece of the kernel's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    /// Address of its first byte; 0 for none.
    pub(super) start: u64,
    /// Bytes.
    pub(super) size: u64,
}

impl LiveSymbols {
    /// Reads the list; empty where it cannot be read.
    pub(super) fn read() -> Self {
        let path = PathBuf::from(KALLSYMS);
        Self {
            symbols: Arc::new(read(&path)),
            path,
        }
    }

    /// The first function of these and those of them right behind it; of size 0 where there is none.
    pub(super) fn range(&self, names: &[&str]) -> Range {
        self.symbols.range(names).unwrap_or_default()
    }

    /// `symbol+0xoffset`. Slow for modules, so callers keep what they got.
    pub(super) fn name(&mut self, address: u64) -> Option<String> {
        if self.symbols.is_empty() || address == 0 {
            return None;
        }
        if !self.symbols.is_core(address) {
            self.symbols = Arc::new(read(&self.path));
        }
        self.symbols.name(address)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }
}

/// Which of these functions there are; also where their addresses are withheld.
pub(super) fn existing<'name>(names: &[&'name str]) -> Vec<&'name str> {
    File::open(KALLSYMS)
        .map(|file| existing_in(BufReader::new(file), names))
        .unwrap_or_default()
}

fn existing_in<'name>(text: impl BufRead, names: &[&'name str]) -> Vec<&'name str> {
    let mut found = Vec::new();
    for line in text.lines().map_while(Result::ok) {
        let name = line.split_ascii_whitespace().nth(2).unwrap_or_default();
        found.extend(names.iter().find(|wanted| **wanted == name));
    }
    found
}

fn read(path: &Path) -> Symbols {
    File::open(path)
        .and_then(|file| Symbols::parse(BufReader::new(file)))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
ffffffff81000000 T _stext
ffffffff81aa1000 T nf_hook_slow
ffffffff81aa1000 T __pfx_alias
ffffffff81aa1100 t nf_checksum
ffffffff81bb0000 d some_data
ffffffffc0401000 t nft_do_chain\t[nf_tables]
0000000000000000 A fixed_percpu_data
";

    #[test]
    fn functions_exist_also_where_their_addresses_are_withheld() {
        let withheld = LIST.replace("ffffffff81aa1000", "0000000000000000");
        let found = existing_in(withheld.as_bytes(), &["nf_hook_slow", "nf_hook"]);
        assert_eq!(found, ["nf_hook_slow"]);
    }

    #[test]
    fn an_address_is_named_by_the_function_before_it() {
        let symbols = Symbols::parse(LIST.as_bytes()).unwrap();
        let name = |address| symbols.name(address);
        assert_eq!(
            name(0xffff_ffff_81aa_107d).as_deref(),
            Some("nf_hook_slow+0x7d")
        );
        assert_eq!(
            name(0xffff_ffff_81aa_1100).as_deref(),
            Some("nf_checksum+0x0")
        );
        assert_eq!(
            name(0xffff_ffff_c040_13e8).as_deref(),
            Some("nft_do_chain+0x3e8")
        );
    }

    #[test]
    fn what_belongs_to_nobody_has_no_name() {
        let symbols = Symbols::parse(LIST.as_bytes()).unwrap();
        assert_eq!(symbols.name(0), None);
        assert_eq!(symbols.name(0xffff_ffff_80ff_ffff), None);
        assert_eq!(
            symbols.name(0xffff_ffff_81bb_0010),
            None,
            "data, 0x10f000 past code"
        );
    }

    #[test]
    fn modules_are_told_from_the_kernel_proper() {
        let symbols = Symbols::parse(LIST.as_bytes()).unwrap();
        assert!(symbols.is_core(0xffff_ffff_81aa_1180));
        assert!(!symbols.is_core(0xffff_ffff_c040_13e8));
    }

    #[test]
    fn withheld_addresses_make_an_empty_table() {
        let list = "0000000000000000 T _stext\n0000000000000000 T nf_hook_slow\n";
        let symbols = Symbols::parse(list.as_bytes()).unwrap();
        assert!(symbols.is_empty());
        assert_eq!(symbols.name(0x7d), None);
    }

    #[test]
    fn a_function_ends_where_the_next_begins() {
        let symbols = Symbols::parse(LIST.as_bytes()).unwrap();
        let (start, size) = (0xffff_ffff_81aa_1000, 0x100);
        assert_eq!(
            symbols.range(&["nf_hook_slow", "other"]),
            Some(Range { start, size })
        );
        assert_eq!(
            symbols
                .range(&["nf_checksum", "nf_hook_slow"])
                .map(|range| range.size),
            Some(0x4000_0000 - 0x01aa_1000 + 0x40_1000)
        );
        assert_eq!(symbols.range(&["other"]), None);
        assert_eq!(symbols.range(&["nft_do_chain"]), None, "it has no end");
    }

    #[test]
    fn odd_lines_are_skipped() {
        let list = "\nnonsense\nzz T x\nffffffff81000000 T\n";
        assert!(Symbols::parse(list.as_bytes()).unwrap().is_empty());
    }
}
