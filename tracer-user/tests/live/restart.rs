//! An agent that is killed, stopped or replaced: what is dropped meanwhile is counted all the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::traffic::{Until, udp_flood};
use lab::{Bpffs, Lab, Wiring};
use tempfile::TempDir;

use crate::agent::Agent;
use crate::exact::{VAULT, by_reason, destinations, flood, rule};
use crate::program::tracer;
use crate::watch;

const FLOWS: u16 = 2_000;

/// What agents leave to each other.
pub(crate) struct Pins {
    pub(crate) bpffs: Bpffs,
    folder: Arc<TempDir>,
}

impl Pins {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            bpffs: Bpffs::new()?,
            folder: Arc::new(tempfile::tempdir()?),
        })
    }

    fn path(&self) -> PathBuf {
        self.bpffs.path().join("tracer")
    }

    pub(crate) fn start<'lab>(&self, lab: &'lab Lab, more: &[&str]) -> Result<Agent<'lab>> {
        let path = self.path();
        let path = path.to_str().context("a path of our own")?;
        Agent::start_in(lab, Arc::clone(&self.folder), path, more)
    }

    /// The names of what an agent keeps: generations, and the map they share.
    fn kept(&self) -> Result<Vec<String>> {
        let agents: Vec<_> = fs::read_dir(self.path())?.collect::<Result<_, _>>()?;
        ensure!(agents.len() == 1, "{agents:?}");
        fs::read_dir(agents[0].path())?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }
}

#[test]
fn killed_and_stopped_it_goes_on_where_it_ended() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let pins = Pins::new().unwrap();
    let rule = rule(&lab).unwrap();
    let agent = pins.start(&lab, &[]).unwrap();
    flood(&agent, &rule, 1, 5_000, &VAULT).unwrap();
    flood(&agent, &rule, FLOWS, 3 * u64::from(FLOWS), &VAULT).unwrap();

    // In the middle of it: told and not told, in the ring and in the table, kept and not kept.
    let to = destinations(&lab, FLOWS);
    let agent = thread::scope(|scope| {
        let flood = scope.spawn(|| udp_flood(lab.remote(), &to, Until::Packets(60_000)));
        agent.until("tracer_drops_total", &VAULT, 20_000).unwrap();
        agent.kill().unwrap();
        // While none runs.
        flood.join().unwrap().unwrap();
        pins.start(&lab, &[]).unwrap()
    });
    flood(&agent, &rule, FLOWS, 1_000, &VAULT).unwrap();
    agent.stop().unwrap();

    udp_flood(lab.remote(), &to, Until::Packets(1_000)).unwrap();
    let agent = pins.start(&lab, &[]).unwrap();
    flood(&agent, &rule, 1, 1, &VAULT).unwrap();
    // The counts are exact, so what the kernel may say it lost was somebody else's.
    assert_eq!(agent.undecodable().unwrap(), 0);
    // Started with nothing to tell.
    agent.kill().unwrap();
    let agent = pins.start(&lab, &[]).unwrap();
    flood(&agent, &rule, 1, 1, &VAULT).unwrap();
    agent.stop().unwrap();
    assert_eq!(pins.kept().unwrap().len(), 2, "{:?}", pins.kept());

    // Others pin there, too.
    let others = ["cilium", "0123456789abcdef"].map(|name| pins.path().join(name));
    fs::create_dir(&others[0]).unwrap();
    fs::create_dir_all(others[1].join("globals")).unwrap();
    let agent = pins.start(&lab, &[]).unwrap();
    let told = unpin(&pins.path()).unwrap();
    assert!(
        told.contains("what one agent left; one is at work"),
        "{told}"
    );
    agent.stop().unwrap();
    assert!(unpin(&pins.path()).unwrap().contains("nothing of tracer's"));
    assert!(others[0].exists() && others[1].join("globals").exists());
    fs::remove_dir(&others[0]).unwrap();
    fs::remove_dir(others[1].join("globals")).unwrap();
    fs::remove_dir(&others[1]).unwrap();

    pins.start(&lab, &[]).unwrap().stop().unwrap();
    assert!(
        unpin(&pins.path())
            .unwrap()
            .ends_with("what one agent left\n")
    );
    assert!(!pins.path().exists());
}

/// What `tracer agent --unpin` says.
fn unpin(path: &Path) -> Result<String> {
    let unpin = Command::new(tracer())
        .args(["agent", "--unpin", "--pin"])
        .arg(path)
        .env_remove("TRACER_PIN")
        .output()?;
    ensure!(unpin.status.success(), "{unpin:?}");
    Ok(String::from_utf8(unpin.stdout)?)
}

#[test]
fn other_programs_take_over_in_the_middle_of_a_flood_without_a_gap() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let pins = Pins::new().unwrap();
    let rule = rule(&lab).unwrap();
    let mut agent = pins.start(&lab, &["--flows", "4096"]).unwrap();
    let to = destinations(&lab, FLOWS);
    for flows in ["8192", "4096", "16384"] {
        agent = thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let until = Until::Elapsed(Duration::from_secs(2));
                udp_flood(lab.remote(), &to, until)
            });
            let before = rule.packets().unwrap();
            agent
                .until("tracer_drops_total", &VAULT, before + 1_000)
                .unwrap();
            agent.kill().unwrap();
            let next = pins.start(&lab, &["--flows", flows]).unwrap();
            flood.join().unwrap().unwrap();
            next
        });
        flood(&agent, &rule, 1, 1, &VAULT).unwrap();
    }
    // What handed over is gone once it is told: one generation, and the map they shared.
    agent.stop().unwrap();
    let agent = pins.start(&lab, &["--flows", "16384"]).unwrap();
    flood(&agent, &rule, 1, 1, &VAULT).unwrap();
    agent.stop().unwrap();
    assert_eq!(pins.kept().unwrap().len(), 2, "{:?}", pins.kept());
}

#[test]
fn what_cannot_be_read_is_no_reason_not_to_start() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let pins = Pins::new().unwrap();
    let rule = rule(&lab).unwrap();
    pins.start(&lab, &["--flows", "4096"])
        .unwrap()
        .stop()
        .unwrap();
    // As a version would leave it that has other layouts.
    let agent = fs::read_dir(pins.path()).unwrap().next().unwrap();
    let agent = agent.unwrap().path();
    let mut kept = pins.kept().unwrap();
    kept.retain(|name| name != "claims");
    let generation = agent.join(&kept[0]);
    let [state, overflow, other] = ["state", "overflow", "other"].map(|name| generation.join(name));
    fs::rename(&state, &other).unwrap();
    fs::rename(&overflow, &state).unwrap();
    fs::rename(&other, &overflow).unwrap();
    let agent = pins.start(&lab, &["--flows", "8192"]).unwrap();
    assert!(!generation.exists());
    flood(&agent, &rule, 1, 5, &VAULT).unwrap();
    agent.stop().unwrap();
}

#[test]
fn what_found_no_room_is_handed_over_too() {
    let Some(lab) = watch::lab(Wiring::Bridge) else {
        return;
    };
    let pins = Pins::new().unwrap();
    let rule = rule(&lab).unwrap();
    let reason = by_reason();
    let agent = pins.start(&lab, &["--flows", "100"]).unwrap();
    flood(&agent, &rule, FLOWS, u64::from(FLOWS), &[&reason]).unwrap();
    agent.kill().unwrap();
    // Of these a table of 100 flows tells next to nothing.
    let to = destinations(&lab, FLOWS);
    udp_flood(lab.remote(), &to, Until::Packets(2 * u64::from(FLOWS))).unwrap();
    let agent = pins.start(&lab, &["--flows", "200"]).unwrap();
    flood(&agent, &rule, 1, 1, &[&reason]).unwrap();
    agent.stop().unwrap();
}
