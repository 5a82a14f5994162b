//! A small kernel's types, and a module's on top of it, assembled byte by byte.

use super::*;

/// Assembles BTF.
#[derive(Default)]
struct Builder {
    types: Vec<u32>,
    strings: Vec<u8>,
    /// Length of the strings of what this goes on top of.
    below: u32,
}

impl Builder {
    fn new() -> Self {
        Self {
            strings: vec![0],
            ..Self::default()
        }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(name.bytes());
        self.strings.push(0);
        self.below + at
    }

    fn ty(&mut self, name: &str, kind: u32, count: u32, target: u32) {
        let name = self.name(name);
        self.types.extend([name, kind << 24 | count, target]);
    }

    fn int(&mut self, name: &str, size: u32) {
        self.ty(name, 1, 0, size);
        self.types.push(size * 8);
    }

    /// Members: name, type, offset in bits.
    fn composite(&mut self, kind: u32, name: &str, size: u32, members: &[(&str, u32, u32)]) {
        self.ty(name, kind, u32::try_from(members.len()).unwrap(), size);
        for (name, ty, bits) in members {
            let name = self.name(name);
            self.types.extend([name, *ty, *bits]);
        }
    }

    fn enumeration(&mut self, name: &str, values: &[(&str, u32)]) {
        self.ty(name, ENUM, u32::try_from(values.len()).unwrap(), 4);
        for (name, value) in values {
            let name = self.name(name);
            self.types.extend([name, *value]);
        }
    }

    fn build(self) -> Vec<u8> {
        let types: Vec<u8> = self
            .types
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let header = [
            u32::from(MAGIC) | 1 << 16,
            24,
            0,
            length(&types),
            length(&types),
            length(&self.strings),
        ];
        let mut data: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
        data.extend(types);
        data.extend(self.strings);
        data
    }
}

const U16: u32 = 1;
const U32: u32 = 2;
const CHAR: u32 = 3;
const DEV: u32 = 4;
const DEV_PTR: u32 = 5;
const NAME: u32 = 6;
const MARK_T: u32 = 7;
const UNION_ID: u32 = 8;
const ANONYMOUS: u32 = 9;
const SKB: u32 = 10;
const SKB_PTR: u32 = 11;
const REASON: u32 = 12;
const PROTO: u32 = 13;
const PROTO_PTR: u32 = 14;

fn kernel() -> Vec<u8> {
    let mut b = Builder::new();
    b.int("unsigned short", 2);
    b.int("unsigned int", 4);
    b.int("char", 1);
    b.composite(
        STRUCT,
        "net_device",
        24,
        &[("ifindex", U32, 0), ("name", NAME, 64)],
    );
    b.ty("", PTR, 0, DEV);
    b.ty("", ARRAY, 0, 0);
    b.types.extend([CHAR, U32, 16]);
    b.ty("mark_t", TYPEDEF, 0, U32);
    b.composite(
        UNION,
        "",
        8,
        &[("dev", DEV_PTR, 0), ("dev_scratch", U32, 0)],
    );
    b.composite(STRUCT, "", 16, &[("next", SKB_PTR, 0), ("", UNION_ID, 64)]);
    // With the flag for bit fields: `cloned` is one.
    b.composite(
        STRUCT,
        "sk_buff",
        40,
        &[
            ("", ANONYMOUS, 0),
            ("mark", MARK_T, 128),
            ("network_header", U16, 176),
            ("odd", U32, 200),
            ("cloned", U32, 1 << 24 | 0x120),
        ],
    );
    let flag = b.types.len() - 5 * 3 - 2;
    b.types[flag] |= 1 << 31;
    b.ty("", PTR, 0, SKB);
    b.enumeration(
        "skb_drop_reason",
        &[
            ("SKB_NOT_DROPPED_YET", 0),
            ("SKB_DROP_REASON_NETFILTER_DROP", 12),
        ],
    );
    b.ty("", FUNC_PROTO, 4, 0);
    b.types
        .extend([0, SKB_PTR, 0, SKB_PTR, 0, SKB_PTR, 0, REASON]);
    b.ty("", PTR, 0, PROTO);
    b.ty("btf_trace_kfree_skb", TYPEDEF, 0, PROTO_PTR);
    b.build()
}

#[test]
fn fields_are_found_in_anonymous_members_too() {
    let btf = Btf::parse(kernel()).unwrap();
    assert_eq!(btf.offset(&["sk_buff", "next"], 8), Some(0));
    assert_eq!(btf.offset(&["sk_buff", "dev"], 8), Some(8));
    assert_eq!(btf.offset(&["sk_buff", "mark"], 4), Some(16));
    assert_eq!(btf.offset(&["sk_buff", "network_header"], 2), Some(22));
    assert_eq!(btf.offset(&["net_device", "name"], 16), Some(8));
    assert_eq!(btf.struct_size("sk_buff"), Some(40));
}

#[test]
fn a_field_that_is_not_what_is_wanted_is_none() {
    let btf = Btf::parse(kernel()).unwrap();
    assert_eq!(btf.offset(&["sk_buff", "gone"], 4), None);
    assert_eq!(btf.offset(&["gone", "mark"], 4), None);
    assert_eq!(btf.offset(&["sk_buff", "mark"], 8), None, "size");
    assert_eq!(btf.offset(&["sk_buff", "odd"], 4), None, "alignment");
    assert_eq!(btf.offset(&["sk_buff", "cloned"], 4), None, "bit field");
    assert_eq!(
        btf.offset(&["sk_buff", "mark", "deeper"], 4),
        None,
        "no struct"
    );
}

#[test]
fn enums_and_tracepoints() {
    let btf = Btf::parse(kernel()).unwrap();
    assert_eq!(
        btf.enum_values(|name| name == "skb_drop_reason"),
        [
            (0, "SKB_NOT_DROPPED_YET"),
            (12, "SKB_DROP_REASON_NETFILTER_DROP")
        ]
    );
    assert_eq!(
        btf.tracepoint("kfree_skb"),
        Some(vec!["", "", "skb_drop_reason"])
    );
    assert_eq!(btf.tracepoint("icmp_send"), None);
}

#[test]
fn a_modules_types_go_on_where_its_kernels_end() {
    let kernel = Btf::parse(kernel()).unwrap();
    let mut module = Builder {
        below: u32::try_from(kernel.strings.len()).unwrap(),
        ..Builder::default()
    };
    module.enumeration("ovs_drop_reason", &[("OVS_DROP_EXPLICIT", 0x2_0003)]);
    // A struct of the module's with a field of a type of the kernel's.
    module.composite(STRUCT, "ovs_cb", 8, &[("input", DEV_PTR, 0)]);
    let module = Btf::parse_module(module.build(), &kernel).unwrap();
    assert_eq!(
        module.enum_values(|name| name.ends_with("_drop_reason")),
        [(0x2_0003, "OVS_DROP_EXPLICIT")]
    );
    assert_eq!(module.offset(&["ovs_cb", "input", "x"], 8), None);
    assert_eq!(module.offset(&["ovs_cb", "input"], 8), Some(0));
}

#[test]
fn damaged_data_is_an_error_or_at_worst_finds_nothing() {
    assert!(matches!(
        Btf::parse(Vec::new()),
        Err(BtfError::Malformed {
            what: "a header",
            ..
        })
    ));
    let whole = kernel();
    for length in 0..whole.len() {
        assert!(Btf::parse(whole[..length].to_vec()).is_err(), "{length}");
    }
    for at in 0..whole.len() {
        for byte in [0, 1, 0x0d, 0x7f, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] = byte;
            if let Ok(btf) = Btf::parse(damaged) {
                // Whatever it says, it comes to an end without a panic.
                let _ = btf.offset(&["sk_buff", "dev"], 8);
                let _ = btf.offset(&["net_device", "name"], 16);
                let _ = btf.tracepoint("kfree_skb");
                let _ = btf.enum_values(|_| true);
            }
        }
    }
}
