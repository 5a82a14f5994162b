//! What the running kernel has, by the names in its types, so that a test knows what to expect of it.

use std::sync::OnceLock;

/// Whether it says why it drops what netfilter and tc want dropped (5.18).
pub fn has_reasons() -> bool {
    knows("SKB_DROP_REASON_NETFILTER_DROP")
}

/// Whether it has tcx, which clsact is older than (6.6).
pub fn has_tcx() -> bool {
    knows("BPF_TCX_INGRESS")
}

/// A drop's reason, where it tells any.
pub fn reason(name: &str) -> &str {
    if has_reasons() { name } else { "NOT_SPECIFIED" }
}

/// Whether a name is among its types.
pub fn knows(name: &str) -> bool {
    static BTF: OnceLock<Vec<u8>> = OnceLock::new();
    let btf = BTF.get_or_init(|| std::fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default());
    let name = [b"\0", name.as_bytes(), b"\0"].concat();
    btf.windows(name.len()).any(|window| window == name)
}
