//! A small, checked reader of BTF, the kernel's own description of its types.
//!
//! Only what the loader asks for: where a field is, what an enum's values are called, what a
//! tracepoint hands over. Nothing is decoded ahead: a kernel has over 100,000 types.
//!
//! Format: <https://docs.kernel.org/bpf/btf.html>.

use std::path::{Path, PathBuf};

/// Why a kernel's type information is of no use.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file is not there or cannot be read.
    #[error(
        "no type information (BTF) of the kernel at {}: the kernel must be built with \
         CONFIG_DEBUG_INFO_BTF, or its BTF be given with --btf FILE",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are no BTF.
    #[error("this is no valid BTF: {what} at byte {at}")]
    Malformed {
        /// What was expected and not there.
        what: &'static str,
        /// Where, from the beginning of the data.
        at: usize,
    },
    /// A struct lacks a field that nothing works without.
    #[error("this kernel's BTF has no usable field `{0}`")]
    NoField(&'static str),
}

const MAGIC: u16 = 0xeb9f;

const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// How deep anonymous members and chains of typedefs are followed: far more than any kernel has, and
/// an end for data that goes in circles.
const DEPTH: u32 = 16;

/// The types of one kernel, or of one module on top of its kernel's.
pub struct Btf<'base> {
    data: Vec<u8>,
    /// Where each type begins in `data`, first id first.
    types: Vec<u32>,
    strings: std::ops::Range<usize>,
    base: Option<&'base Btf<'base>>,
}

/// One type's fixed part.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    /// Number of members, values or parameters.
    count: u32,
    /// Of a struct with bit fields.
    flag: bool,
    /// Id of another type, or a size in bytes.
    target: u32,
    /// Where what follows the fixed part begins in `data`.
    rest: usize,
}

impl<'base> Btf<'base> {
    /// Reads a kernel's BTF: `/sys/kernel/btf/vmlinux`, or a file of the same format.
    pub fn from_file(path: &Path) -> Result<Self, BtfError> {
        let data = std::fs::read(path).map_err(|source| BtfError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(data)
    }

    /// Parses a kernel's BTF.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        Self::parse_on(data, None)
    }

    /// Parses a module's BTF, which goes on where its kernel's ends.
    pub fn parse_module(data: Vec<u8>, base: &'base Btf<'base>) -> Result<Self, BtfError> {
        Self::parse_on(data, Some(base))
    }

    fn parse_on(data: Vec<u8>, base: Option<&'base Btf<'base>>) -> Result<Self, BtfError> {
        let header = |at: usize, what| {
            read_u32(&data, at)
                .map(|value| value as usize)
                .ok_or(BtfError::Malformed { what, at })
        };
        let magic = header(0, "a header")? & 0xffff;
        if magic != usize::from(MAGIC) {
            return Err(BtfError::Malformed {
                what: "the magic number 0xeb9f (of this machine's byte order)",
                at: 0,
            });
        }
        let start = header(4, "the header's length")?;
        let section = |offset_at, what| {
            let begin = start + header(offset_at, what)?;
            let end = begin + header(offset_at + 4, what)?;
            if end > data.len() {
                return Err(BtfError::Malformed {
                    what,
                    at: offset_at,
                });
            }
            Ok(begin..end)
        };
        let type_section = section(8, "a type section inside the file")?;
        let strings = section(16, "a string section inside the file")?;

        let mut types = Vec::with_capacity(type_section.len() / 32);
        let mut at = type_section.start;
        while at < type_section.end {
            let malformed = BtfError::Malformed {
                what: "a type of a known kind",
                at,
            };
            let size = read_type(&data, at).and_then(|ty| Some(12 + rest_size(&ty)?));
            let Some(size) = size.filter(|size| at + size <= type_section.end) else {
                return Err(malformed);
            };
            types.push(u32::try_from(at).map_err(|_| malformed)?);
            at += size;
        }
        Ok(Self {
            data,
            types,
            strings,
            base,
        })
    }

    /// First id of the types that are this object's own; 0 is `void`.
    fn first_id(&self) -> u32 {
        self.base.map_or(1, Self::next_id)
    }

    fn next_id(&self) -> u32 {
        // The count fits: every type takes 12 bytes of data whose offsets are 32 bits wide.
        self.first_id() + u32::try_from(self.types.len()).unwrap_or(u32::MAX)
    }

    fn get(&self, id: u32) -> Option<(&Btf<'base>, Type)> {
        let Some(index) = id.checked_sub(self.first_id()) else {
            return self.base?.get(id);
        };
        let at = *self.types.get(index as usize)?;
        Some((self, read_type(&self.data, at as usize)?))
    }

    fn string(&self, offset: u32) -> Option<&str> {
        let base = self.base.map_or(0, Self::strings_end);
        let Some(own) = offset.checked_sub(base) else {
            return self.base?.string(offset);
        };
        let bytes = self.data[self.strings.clone()].get(own as usize..)?;
        std::ffi::CStr::from_bytes_until_nul(bytes)
            .ok()?
            .to_str()
            .ok()
    }

    fn strings_end(&self) -> u32 {
        self.base.map_or(0, Self::strings_end)
            + u32::try_from(self.strings.len()).unwrap_or(u32::MAX)
    }

    /// This object's own types of the given kinds.
    fn own(&self, kinds: [u32; 2]) -> impl Iterator<Item = (u32, Type)> {
        self.types
            .iter()
            .zip(self.first_id()..)
            .filter_map(move |(&at, id)| {
                let ty = read_type(&self.data, at as usize)?;
                kinds.contains(&ty.kind).then_some((id, ty))
            })
    }

    fn find(&self, kinds: [u32; 2], name: &str) -> Option<(u32, Type)> {
        self.own(kinds)
            .find(|(_, ty)| self.string(ty.name) == Some(name))
    }

    /// Follows typedefs and qualifiers to what is behind them.
    fn resolve(&self, mut id: u32) -> Option<(&Btf<'base>, Type)> {
        for _ in 0..DEPTH {
            let (owner, ty) = self.get(id)?;
            match ty.kind {
                TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => id = ty.target,
                _ => return Some((owner, ty)),
            }
        }
        None
    }

    fn size_of(&self, id: u32, depth: u32) -> Option<u32> {
        let (owner, ty) = self.resolve(id)?;
        match ty.kind {
            // tracer runs on 64-bit kernels only.
            PTR => Some(8),
            ARRAY if depth > 0 => {
                let element = read_u32(&owner.data, ty.rest)?;
                let length = read_u32(&owner.data, ty.rest + 8)?;
                owner.size_of(element, depth - 1)?.checked_mul(length)
            }
            ARRAY | FUNC_PROTO => None,
            _ => Some(ty.target),
        }
    }

    /// Size of a struct, in bytes.
    pub fn struct_size(&self, name: &str) -> Option<u32> {
        Some(self.find([STRUCT, STRUCT], name)?.1.target)
    }

    /// Offset in bytes of `path` (`["sock", "__sk_common", "skc_net"]`: a struct and its members),
    /// looked for in anonymous members too. `None` where there is no such field, or it is not `size`
    /// bytes, aligned to its size: it would not be what the reader takes it for.
    pub fn offset(&self, path: &[&str], size: u32) -> Option<u32> {
        let (offset, id) = self.locate(path)?;
        let aligned = offset.is_multiple_of(size.min(8));
        (self.size_of(id, DEPTH)? == size && aligned).then_some(offset)
    }

    /// [`Btf::offset`] of a struct in a struct, of whatever size.
    pub fn offset_of(&self, path: &[&str]) -> Option<u32> {
        self.locate(path).map(|(offset, _)| offset)
    }

    /// Offset in bytes, and type.
    fn locate(&self, path: &[&str]) -> Option<(u32, u32)> {
        let (root, members) = path.split_first()?;
        let (mut id, _) = self.find([STRUCT, STRUCT], root)?;
        let mut offset = 0;
        for member in members {
            let (bits, member_id) = self.member(id, member, DEPTH)?;
            if !bits.is_multiple_of(8) {
                return None;
            }
            offset += bits / 8;
            id = member_id;
        }
        Some((offset, id))
    }

    /// Offset in bits, and type, of a member.
    fn member(&self, id: u32, name: &str, depth: u32) -> Option<(u32, u32)> {
        let depth = depth.checked_sub(1)?;
        let (owner, ty) = self.resolve(id)?;
        if ty.kind != STRUCT && ty.kind != UNION {
            return None;
        }
        (0..ty.count as usize).find_map(|index| {
            let at = ty.rest + index * 12;
            let member_name = owner.string(read_u32(&owner.data, at)?)?;
            let member_type = read_u32(&owner.data, at + 4)?;
            let bits = read_u32(&owner.data, at + 8)?;
            // With the flag, the upper byte is a bit field's width.
            let (bits, width) = if ty.flag {
                (bits & 0x00ff_ffff, bits >> 24)
            } else {
                (bits, 0)
            };
            if member_name == name {
                return (width == 0).then_some((bits, member_type));
            }
            if member_name.is_empty() {
                let (inner, inner_type) = owner.member(member_type, name, depth)?;
                return Some((bits + inner, inner_type));
            }
            None
        })
    }

    /// Values and names of every enum of this object whose own name satisfies `wanted`.
    pub fn enum_values(&self, wanted: impl Fn(&str) -> bool) -> Vec<(u64, &str)> {
        let mut values = Vec::new();
        for (_, ty) in self.own([ENUM, ENUM64]) {
            if !self.string(ty.name).is_some_and(&wanted) {
                continue;
            }
            let step = if ty.kind == ENUM { 8 } else { 12 };
            values.extend((0..ty.count as usize).filter_map(|index| {
                let at = ty.rest + index * step;
                let name = self.string(read_u32(&self.data, at)?)?;
                let low = u64::from(read_u32(&self.data, at + 4)?);
                let high = if ty.kind == ENUM64 {
                    u64::from(read_u32(&self.data, at + 8)?) << 32
                } else {
                    0
                };
                Some((high | low, name))
            }));
        }
        values
    }

    /// Number of the type of a function by this name.
    pub fn function(&self, name: &str) -> Option<u32> {
        self.find([FUNC, FUNC], name).map(|(id, _)| id)
    }

    /// The parameters of a tracepoint, each by the name of its type (empty for pointers and other
    /// types without one); `None` where BTF does not describe the tracepoint.
    pub fn tracepoint(&self, name: &str) -> Option<Vec<&str>> {
        // typedef void (*btf_trace_NAME)(void *__data, ...)
        let (_, typedef) = self.find([TYPEDEF, TYPEDEF], &format!("btf_trace_{name}"))?;
        let (_, pointer) = self.get(typedef.target)?;
        let (owner, prototype) = self.get(pointer.target)?;
        if pointer.kind != PTR || prototype.kind != FUNC_PROTO {
            return None;
        }
        (1..prototype.count as usize)
            .map(|index| {
                let id = read_u32(&owner.data, prototype.rest + index * 8 + 4)?;
                let (owner, ty) = owner.resolve(id)?;
                owner.string(ty.name)
            })
            .collect()
    }
}

fn read_u32(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_ne_bytes)
}

fn read_type(data: &[u8], at: usize) -> Option<Type> {
    let info = read_u32(data, at + 4)?;
    Some(Type {
        name: read_u32(data, at)?,
        kind: (info >> 24) & 0x1f,
        count: info & 0xffff,
        flag: info >> 31 != 0,
        target: read_u32(data, at + 8)?,
        rest: at + 12,
    })
}

/// Bytes that follow a type's fixed part; `None` for a kind that is not known.
fn rest_size(ty: &Type) -> Option<usize> {
    let count = ty.count as usize;
    Some(match ty.kind {
        // Int, variable, declaration tag.
        1 | 14 | 17 => 4,
        ARRAY => 12,
        // Data section as well.
        STRUCT | UNION | 15 | ENUM64 => count * 12,
        ENUM | FUNC_PROTO => count * 8,
        // Forward declaration, function, float.
        PTR | 7 | TYPEDEF | VOLATILE | CONST | RESTRICT | 12 | 16 | TYPE_TAG => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
