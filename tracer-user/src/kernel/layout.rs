//! Where the running kernel has the fields the programs read.

use tracer_common::{ABSENT, Config, feature};

use super::btf::{Btf, BtfError};

/// The configuration of the programs for this kernel, as far as BTF goes.
///
/// Fails only where a field is missing without which no packet can be read; what is merely good to
/// have is left out.
pub(super) fn layout(btf: &Btf<'_>) -> Result<Config, BtfError> {
    let optional = |path: &[&str], size| btf.offset(path, size).unwrap_or(ABSENT);
    let skb = |member, size, name| {
        btf.offset(&["sk_buff", member], size)
            .ok_or(BtfError::NoField(name))
    };
    Ok(Config {
        features: if has_reason(btf) { feature::REASON } else { 0 },
        skb_size: btf
            .struct_size("sk_buff")
            .ok_or(BtfError::NoField("sk_buff"))?,
        skb_head: skb("head", 8, "sk_buff.head")?,
        skb_data: skb("data", 8, "sk_buff.data")?,
        skb_len: skb("len", 4, "sk_buff.len")?,
        skb_data_len: skb("data_len", 4, "sk_buff.data_len")?,
        skb_network_header: skb("network_header", 2, "sk_buff.network_header")?,
        skb_protocol: skb("protocol", 2, "sk_buff.protocol")?,
        skb_mac_header: optional(&["sk_buff", "mac_header"], 2),
        skb_mark: optional(&["sk_buff", "mark"], 4),
        skb_dev: optional(&["sk_buff", "dev"], 8),
        skb_sk: optional(&["sk_buff", "sk"], 8),
        skb_refdst: optional(&["sk_buff", "_skb_refdst"], 8),
        dev_ifindex: optional(&["net_device", "ifindex"], 4),
        dev_name: optional(&["net_device", "name"], 16),
        dev_net: optional(&["net_device", "nd_net", "net"], 8),
        sock_net: optional(&["sock", "__sk_common", "skc_net", "net"], 8),
        net_inum: optional(&["net", "ns", "inum"], 4),
        dst_dev: optional(&["dst_entry", "dev"], 8),
        skb_iif: optional(&["sk_buff", "skb_iif"], 4),
        skb_nfct: optional(&["sk_buff", "_nfct"], 8),
        ..Config::EMPTY
    })
}

/// Adds where connection tracking keeps what a packet's destination was. `conntrack`: the types of the
/// module, or of the kernel where that is built in.
pub(super) fn add_conntrack(config: &mut Config, conntrack: &Btf<'_>) {
    // `tuplehash` has two elements; the first is the original direction's.
    let hash = conntrack.struct_size("nf_conntrack_tuple_hash");
    let inside = |path: &[&str], size| conntrack.offset(path, size);
    let found = || {
        let status = inside(&["nf_conn", "status"], 8)?;
        let tuples = inside(&["nf_conn", "tuplehash"], hash? * 2)?;
        let tuple = conntrack.offset_of(&["nf_conntrack_tuple_hash", "tuple"])?;
        // Sixteen bytes aligned to four.
        let address = conntrack.offset_of(&["nf_conntrack_tuple", "dst", "u3"])?;
        let port = inside(&["nf_conntrack_tuple", "dst", "u"], 2)?;
        Some((status, tuples + tuple + address, tuples + tuple + port))
    };
    if let Some((status, address, port)) = found() {
        config.ct_status = status;
        config.ct_address = address;
        config.ct_port = port;
    }
}

/// Whether `kfree_skb` hands over the reason, its third argument (since 5.17).
pub(super) fn has_reason(btf: &Btf<'_>) -> bool {
    btf.tracepoint("kfree_skb")
        .is_some_and(|parameters| parameters.get(2) == Some(&"skb_drop_reason"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every field is found in the kernel the tests run on, if it has BTF at all.
    #[test]
    fn the_running_kernel() {
        let Ok(btf) = Btf::from_file("/sys/kernel/btf/vmlinux".as_ref()) else {
            println!("SKIPPED: this kernel has no BTF");
            assert!(std::env::var_os("TRACER_REQUIRE_ALL").is_none());
            return;
        };
        let config = layout(&btf).unwrap();
        assert!((200..=256).contains(&config.skb_size), "{config:?}");
        assert_ne!(config.skb_mark, ABSENT);
        assert_ne!(config.skb_dev, ABSENT);
        assert_ne!(config.skb_refdst, ABSENT);
        assert_ne!(config.dev_ifindex, ABSENT);
        assert_ne!(config.dev_name, ABSENT);
        assert_ne!(config.dev_net, ABSENT);
        assert_ne!(config.sock_net, ABSENT);
        assert_ne!(config.net_inum, ABSENT);
        assert_ne!(config.dst_dev, ABSENT);
    }
}
