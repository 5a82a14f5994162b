//! Privileges, and giving up those that are needed no more.

use caps::{CapSet, Capability, CapsHashSet};

/// What a running capture goes on needing: reading its maps (kernels before 5.19 ask for it at each
/// call where `kernel.unprivileged_bpf_disabled` is set), names of the functions of modules that come
/// later (`kernel.kptr_restrict`), and the rules that packets fall by, which change.
const KEPT: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_SYSLOG,
    Capability::CAP_NET_ADMIN,
];

/// Gives up every capability of this thread, and of those it starts from now on, that a running capture
/// does not need. Returns what is left, by name.
///
/// On kernels before 5.8, which have no `CAP_BPF`, all stay: there `CAP_SYS_ADMIN` is what reads maps.
///
/// # Errors
///
/// Where the kernel refuses; nothing is known to be given up then.
pub fn give_up() -> Result<Vec<String>, caps::errors::CapsError> {
    let has_bpf = caps::has_cap(None, CapSet::Bounding, Capability::CAP_BPF).unwrap_or(false)
        || caps::has_cap(None, CapSet::Permitted, Capability::CAP_BPF).unwrap_or(false);
    let held = caps::read(None, CapSet::Permitted)?;
    if !has_bpf {
        return Ok(names(&held));
    }
    let kept: CapsHashSet = held
        .into_iter()
        .filter(|capability| KEPT.contains(capability))
        .collect();
    // Ambient ones have to be permitted and inheritable, effective ones permitted: in this order.
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(names(&kept))
}

fn names(capabilities: &CapsHashSet) -> Vec<String> {
    let mut names: Vec<_> = capabilities.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    names
}
