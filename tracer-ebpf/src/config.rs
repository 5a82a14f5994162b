//! Read-only globals that user space fills in before it loads the programs.

use core::hint::black_box;

use aya_ebpf::Global;
use tracer_common::{Config, REASON_WORDS, ethertype, feature, reason_bit};

#[unsafe(no_mangle)]
pub(crate) static CONFIG: Global<Config> = Global::new(Config::EMPTY);

/// Bitmap of the reasons of interest, see [`reason_bit`].
#[unsafe(no_mangle)]
static REASONS: Global<[u64; REASON_WORDS]> = Global::new([0; REASON_WORDS]);

/// One field of the configuration. `Global::load` would copy all of it for each.
macro_rules! config {
    ($field:ident) => {{
        let config = (&raw const $crate::config::CONFIG).cast::<tracer_common::Config>();
        // SAFETY: `Global` is transparent, and the loader overwrites the value before the program is
        // loaded only; volatile, because the compiler must not take the initial value for granted.
        unsafe { core::ptr::read_volatile(&raw const (*config).$field) }
    }};
}
pub(crate) use config;

/// Whether this kernel tells reasons.
#[inline(always)]
pub(crate) fn has_reason() -> bool {
    config!(features) & feature::REASON != 0
}

/// Whether a drop for this reason, or there, is of interest.
#[inline(always)]
pub(crate) fn wants(reason: u32, location: u64) -> bool {
    let features = config!(features);
    if features & feature::ALL_REASONS != 0 {
        return true;
    }
    if features & feature::BY_LOCATION != 0 {
        return location.wrapping_sub(config!(netfilter_start)) < config!(netfilter_size)
            || is_at_tc_ingress(location)
            || location.wrapping_sub(config!(tc_egress_start)) < config!(tc_egress_size)
            || gives_no_reason(location);
    }
    if reason == config!(unspecified) && gives_no_reason(location) {
        return true;
    }
    let Some((word, bit)) = reason_bit(reason) else {
        return false;
    };
    // The compiler knows the bound and would drop the mask; the verifier needs it.
    let word = black_box(word) & (REASON_WORDS - 1);
    const { assert!(REASON_WORDS.is_power_of_two()) };
    // SAFETY: `word` is inside the array; see `config!` for the rest.
    let reasons = unsafe { core::ptr::read_volatile((&raw const REASONS).cast::<u64>().add(word)) };
    reasons & bit != 0
}

/// Whether a verdict is carried out there without a reason.
#[inline(always)]
fn gives_no_reason(location: u64) -> bool {
    location.wrapping_sub(config!(queue_start)) < config!(queue_size)
        || location.wrapping_sub(config!(reinject_start)) < config!(reinject_size)
        || location.wrapping_sub(config!(netkit_start)) < config!(netkit_size)
}

/// Whether a drop there is of a protocol that nobody understands: where the place tells what is of interest, the
/// function that frees what tc drops on ingress frees those too, which are nobody's policy.
#[inline(always)]
pub(crate) fn is_unknown_protocol(location: u64, ethertype: u16) -> bool {
    config!(features) & feature::BY_LOCATION != 0
        && is_at_tc_ingress(location)
        && !ethertype::is_ip(ethertype)
}

#[inline(always)]
fn is_at_tc_ingress(location: u64) -> bool {
    location.wrapping_sub(config!(tc_ingress_start)) < config!(tc_ingress_size)
}
