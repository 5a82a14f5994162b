//! Addresses of kernel code to names, by `/proc/kallsyms`.

use std::path::PathBuf;

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
    /// Parses the text of `/proc/kallsyms`.
    ///
    /// The table is empty where the kernel withholds addresses (`kernel.kptr_restrict`): it then
    /// prints zeros.
    pub fn parse(text: &str) -> Self {
        let mut symbols = Self::default();
        for line in text.lines() {
            // address type name [module]
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            if !matches!(kind, "t" | "T" | "w" | "W") {
                continue;
            }
            let Ok(address) = u64::from_str_radix(address, 16) else {
                continue;
            };
            let Ok(at) = u32::try_from(symbols.names.len()) else {
                break;
            };
            if address == 0 {
                continue;
            }
            symbols.table.push((address, at));
            symbols.names.push_str(name);
            symbols.names.push('\n');
            if words.next().is_none() {
                let (first, last) = symbols.core.get_or_insert((address, address));
                *first = address.min(*first);
                *last = address.max(*last);
            }
        }
        // Stable: of several names at one address the first listed stays first.
        symbols.table.sort_by_key(|(address, _)| *address);
        symbols.table.dedup_by_key(|(address, _)| *address);
        symbols
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

    /// Whether the address is the kernel proper's, which never moves.
    fn is_core(&self, address: u64) -> bool {
        self.core
            .is_some_and(|(first, last)| (first..last + LONGEST).contains(&address))
    }
}

/// The running kernel's symbols. Modules come and go: an address outside the kernel proper has the
/// list read again.
pub(super) struct LiveSymbols {
    path: PathBuf,
    symbols: Symbols,
}

impl LiveSymbols {
    /// Reads the list; empty where it cannot be read.
    pub(super) fn read() -> Self {
        let path = PathBuf::from(KALLSYMS);
        Self {
            symbols: read(&path),
            path,
        }
    }

    /// `symbol+0xoffset`. Slow for modules, so callers keep what they got.
    pub(super) fn name(&mut self, address: u64) -> Option<String> {
        if self.symbols.is_empty() || address == 0 {
            return None;
        }
        if !self.symbols.is_core(address) {
            self.symbols = read(&self.path);
        }
        self.symbols.name(address)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }
}

fn read(path: &std::path::Path) -> Symbols {
    Symbols::parse(&std::fs::read_to_string(path).unwrap_or_default())
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
    fn an_address_is_named_by_the_function_before_it() {
        let symbols = Symbols::parse(LIST);
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
        let symbols = Symbols::parse(LIST);
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
        let symbols = Symbols::parse(LIST);
        assert!(symbols.is_core(0xffff_ffff_81aa_1180));
        assert!(!symbols.is_core(0xffff_ffff_c040_13e8));
    }

    #[test]
    fn withheld_addresses_make_an_empty_table() {
        let symbols =
            Symbols::parse("0000000000000000 T _stext\n0000000000000000 T nf_hook_slow\n");
        assert!(symbols.is_empty());
        assert_eq!(symbols.name(0x7d), None);
    }

    #[test]
    fn odd_lines_are_skipped() {
        assert!(Symbols::parse("\nnonsense\nzz T x\nffffffff81000000 T\n").is_empty());
    }
}
