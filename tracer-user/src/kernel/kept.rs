//! Going on with what an earlier agent left in the kernel, or taking over from it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::error::Error;
use super::flows::{Flows, Look};
use super::loader::Loader;
use super::parts::{Maps, Parts};
use super::pin::{Generation, Home, MarkSet, Marks, Settled, hand_over, remove, try_remove};
use super::streaks::States;
use super::table::KernelTables;

/// What stays in the kernel.
pub(super) struct Kept {
    pub(super) generation: Generation,
    /// Which marks are kept outside this process.
    pub(super) settled: Settled,
    /// An earlier process has counted already.
    pub(super) goes_on: bool,
    older: Vec<Older>,
    /// The number of the next marks.
    next_marks: u64,
    /// The last marks have everything that was counted before the start.
    caught_up: bool,
    /// Nobody else works here as long as this is there.
    _home: Home,
}

/// Programs that have handed over, and counts of theirs that may not be told yet.
struct Older {
    path: PathBuf,
    name: String,
    flows: Flows,
    /// All was told.
    told: bool,
    /// That it cannot be removed was said.
    stays: bool,
}

/// Programs out of a home: the right ones if they are there, else new ones, which take over from those
/// that are.
pub(super) fn keep(
    home: Home,
    loader: &Loader<'_>,
    marks: Option<&Marks>,
) -> Result<(Parts, Option<Kept>), Error> {
    let fingerprint = loader.fingerprint();
    let mut generations = home.generations();
    let goes_on = !generations.is_empty();
    let adopted = generations.pop_if(|last| last.fits(fingerprint));
    let adopted = adopted.and_then(|generation| {
        let parts = Parts::from_pins(&home.path(&generation));
        Some((
            parts
                .map_err(|error| home.give_up(&generation, &error))
                .ok()?,
            generation,
        ))
    });
    let (generation, mut parts) = if let Some((parts, generation)) = adopted {
        (generation, parts)
    } else {
        let parts = loader.load(Some(&home.claims()), goes_on)?;
        let generation = home.make(fingerprint).map_err(|source| Error::Io {
            action: "make a folder for what stays in the kernel",
            path: None,
            source,
        })?;
        let parts = parts.pin(&home.path(&generation))?;
        (generation, parts)
    };

    let mut maps = Vec::new();
    generations.retain(|generation| {
        let pinned = Maps::from_pins(&home.path(generation));
        let pinned = pinned.map_err(|error| home.give_up(generation, &error));
        pinned.map(|pinned| maps.push(pinned)).is_ok()
    });
    for newer in 1..=maps.len() {
        let (older, newer) = maps.split_at_mut(newer);
        let newer = newer.first_mut().unwrap_or(&mut parts.maps);
        if let Some(older) = older.last_mut() {
            hand_over(&mut older.mode, &mut newer.mode)?;
        }
    }
    let mut older = Vec::new();
    for (generation, maps) in generations.into_iter().zip(maps) {
        let path = home.path(&generation);
        Parts::take_out(&path);
        if !generation.is_readable() {
            tracing::warn!(
                "an agent of another version was here: what it had not told yet cannot be read"
            );
            remove(&path);
            continue;
        }
        let name = generation.name();
        let marks = marks.and_then(|marks| marks.of(&name));
        match flows_of(maps, marks) {
            Ok(flows) => older.push(Older {
                path,
                flows,
                name,
                told: false,
                stays: false,
            }),
            Err(error) => home.give_up(&generation, &error),
        }
    }
    let kept = Kept {
        generation,
        settled: Settled::default(),
        goes_on,
        older,
        next_marks: 1,
        caught_up: false,
        _home: home,
    };
    Ok((parts, Some(kept)))
}

/// The flows of programs that have handed over.
fn flows_of(maps: Maps, marks: Option<&MarkSet>) -> Result<Flows, Error> {
    let tables = KernelTables::new(maps.flows, maps.overflow, States::new(maps.state)?, None)?;
    // Full from the start: its flows leave as under pressure.
    Flows::new(tables, 0, Duration::MAX, Arc::default(), marks)
}

impl Older {
    /// Takes its maps away; whether they are gone.
    fn is_removed(&mut self) -> bool {
        match try_remove(&self.path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => {
                if !std::mem::replace(&mut self.stays, true) {
                    let name = &self.name;
                    tracing::warn!(
                        "cannot remove what was pinned as {name}, and goes on trying: {error}"
                    );
                }
                false
            }
        }
    }
}

impl Kept {
    /// Hands on what older programs have counted; takes their maps away once that is kept elsewhere.
    pub(super) fn sweep_older(
        &mut self,
        now_ns: u64,
        each: &mut impl FnMut(&[u8]) -> bool,
    ) -> Result<(), Error> {
        let kept_marks = self.settled.number();
        for older in &mut self.older {
            if !older.told {
                let look = Look {
                    now_ns,
                    fresh_ns: u64::MAX,
                    kept_marks: None,
                };
                // Its counters are not read: all of its tables are.
                older.flows.sweep(None, look, each)?;
                older.told = !older.flows.is_owing();
            }
        }
        self.older.retain_mut(|older| {
            let done = older.told && older.flows.told_in() <= kept_marks;
            // As long as it is there, the next agent has to know that it was told.
            !(done && older.is_removed())
        });
        Ok(())
    }

    /// Whether older programs have counted what is still to be told.
    pub(super) fn is_owing(&self) -> bool {
        self.older.iter().any(|older| !older.told)
    }

    /// What was told, if anything was since the last time. What is still to be told is safe in the kernel's
    /// tables; where it is not, there are none.
    pub(super) fn marks(&mut self, flows: &mut Flows) -> Option<Marks> {
        let caught_up = flows.is_caught_up() && !self.is_owing();
        let unmarked =
            flows.is_unmarked() || self.older.iter().any(|older| older.flows.is_unmarked());
        if flows.has_last_words() || !unmarked && caught_up == self.caught_up {
            return None;
        }
        self.caught_up = caught_up;
        let number = self.next_marks;
        self.next_marks += 1;
        let current = flows.marks(self.generation.name());
        let older = self
            .older
            .iter_mut()
            .map(|older| older.flows.marks(older.name.clone()));
        Some(Marks {
            sets: older.chain([current]).collect(),
            number,
            caught_up,
        })
    }
}
