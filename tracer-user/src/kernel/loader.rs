//! Making programs of the object: its globals and maps for this kernel, and each on its hook.

use std::path::Path;

use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use tracer_common::{Config, feature};
use tracing::level_filters::LevelFilter;
use zerocopy::IntoBytes;

use super::answers;
use super::attach::{Attacher, Flavour, ICMP_SEND, KFREE_SKB, load_error};
use super::btf::Btf;
use super::error::Error;
use super::load::Options;
use super::pages;
use super::parts::{Maps, Parts};
use super::pin::wait_for_older;
use super::reasons::Selection;
use crate::fingerprint::fingerprint;

/// The eBPF object; empty where the build lacked the toolchain.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracer.bpf.o"));

/// Smallest ring: room for some hundred records.
const MIN_RING: u32 = 64 << 10;
/// Largest: the kernel counts its size twice in 32 bits.
const MAX_RING: u32 = 1 << 30;

/// Most flows: 300 MB of the kernel's memory.
const MAX_FLOWS: u32 = 1 << 20;

/// Whether this build carries the programs.
pub(super) fn has_programs() -> bool {
    !OBJECT.is_empty()
}

/// What programs are made from.
pub(super) struct Loader<'a> {
    pub(super) btf: &'a Btf<'a>,
    pub(super) options: &'a Options,
    pub(super) config: &'a Config,
    pub(super) selection: &'a Selection,
}

impl Loader<'_> {
    /// Tells programs apart that must not go on with each other's maps.
    pub(super) fn fingerprint(&self) -> u64 {
        let Options {
            ring_bytes,
            flows,
            log_level: level,
            flavour,
            ..
        } = self.options;
        let settings = format!("{ring_bytes} {flows} {level} {flavour:?}");
        fingerprint([
            OBJECT,
            self.config.as_bytes(),
            self.selection.bitmap.as_bytes(),
            settings.as_bytes(),
        ])
    }

    /// Loads and attaches programs. `claims`: where the map of claims is pinned that they share with
    /// others; `wait`: count nothing yet.
    pub(super) fn load(&self, claims: Option<&Path>, wait: bool) -> Result<Parts, Error> {
        if self.options.flavour != Some(Flavour::Raw)
            && let Some(object) = pages::object(OBJECT, self.btf)
        {
            let config = Config {
                features: self.config.features | feature::PAGES,
                ..*self.config
            };
            match self.load_object(&object, &config, Some(Flavour::Btf), claims, wait) {
                Ok(parts) => return Ok(parts),
                // Whatever else is the matter comes up again.
                Err(why) => tracing::debug!(%why, "packets' pages are not read"),
            }
        }
        self.load_object(OBJECT, self.config, self.options.flavour, claims, wait)
    }

    /// `flavour`: of the program at `kfree_skb`, if only one will do.
    fn load_object(
        &self,
        object: &[u8],
        config: &Config,
        flavour: Option<Flavour>,
        claims: Option<&Path>,
        wait: bool,
    ) -> Result<Parts, Error> {
        let level = log_level(self.options.log_level);
        let flows = self.options.flows.clamp(1, MAX_FLOWS);
        let recent = flows.next_power_of_two();
        let mut loader = EbpfLoader::new();
        loader
            // The programs hold no CO-RE relocations.
            .btf(None)
            .override_global("CONFIG", config.as_bytes(), true)
            .override_global("REASONS", &self.selection.bitmap, true)
            .override_global("RECENT_SIZE", &recent, true)
            .override_global(aya_log::LEVEL, &level, false)
            .map_max_entries("EVENTS", ring_size(self.options.ring_bytes))
            .map_max_entries("FLOWS", flows)
            .map_max_entries("RECENT", recent);
        if let Some(claims) = claims {
            loader.map_pin_path("CLAIMS", claims);
        }
        let mut ebpf = loader.load(object).map_err(load_error)?;
        let log = log_of(&mut ebpf);
        let mut maps = Maps::take(&mut ebpf)?;
        if wait {
            wait_for_older(&mut maps.mode)?;
        }
        if config.features & feature::PAGES != 0 {
            pages::mark(&mut maps.mode)?;
        }
        let mut attacher = Attacher::new(self.btf, self.options.flavour);
        let mut attached = Vec::new();
        // A reject is noted before its drop is seen.
        match attacher.attach(&mut ebpf, &ICMP_SEND) {
            Ok(one) => attached.push(one),
            Err(why) => tracing::debug!(%why, "no program at icmp_send"),
        }
        let has_icmp_send = !attached.is_empty();
        let listeners = answers::load(&mut ebpf, has_icmp_send);
        attacher.insist_on(flavour);
        attached.push(attacher.attach(&mut ebpf, &KFREE_SKB)?);
        Ok(Parts {
            maps,
            attached,
            listeners,
            log,
        })
    }
}

/// A power of two between [`MIN_RING`] and [`MAX_RING`].
pub(super) fn ring_size(bytes: u32) -> u32 {
    bytes.clamp(MIN_RING, MAX_RING).next_power_of_two()
}

/// `aya_log`'s numbers; 0 is off.
fn log_level(level: LevelFilter) -> u8 {
    level.into_level().map_or(0, |level| match level {
        tracing::Level::ERROR => 1,
        tracing::Level::WARN => 2,
        tracing::Level::INFO => 3,
        tracing::Level::DEBUG => 4,
        tracing::Level::TRACE => 5,
    })
}

/// The programs' own messages, to the crate `log`. They have none where the level was pruned.
fn log_of(ebpf: &mut Ebpf) -> Box<dyn FnMut() + Send> {
    match EbpfLogger::init(ebpf) {
        Ok(mut logger) => Box::new(move || logger.flush()),
        Err(_) => Box::new(|| {}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_sizes_are_powers_of_two() {
        assert_eq!(ring_size(0), MIN_RING);
        assert_eq!(ring_size(4 << 20), 4 << 20);
        assert_eq!(ring_size((4 << 20) + 1), 8 << 20);
        assert_eq!(ring_size(u32::MAX), MAX_RING);
    }
}
