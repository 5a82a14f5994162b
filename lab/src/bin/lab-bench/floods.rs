//! Floods: how much slower the sender gets, and what the agent takes for itself.

use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::programs::loaded_programs;
use lab::traffic::{Flooded, Until, udp_flood};
use lab::{BROKEN_POLICY, Bpffs, Lab};

use crate::process::Process;
use crate::summary::Summary;

/// Long enough for a ratio, short enough for many pairs.
pub(crate) const RUN: Duration = Duration::from_millis(700);

/// Long enough for a tool's CPU time: a few of the agent's looks at the table, which come once a second.
const CPU_RUN: Duration = Duration::from_millis(3500);

/// Runs for the CPU time, of which the median counts.
const CPU_RUNS: usize = 3;

/// How long a tool's programs may stay in the kernel after its end.
const GONE: Duration = Duration::from_secs(10);

/// Ports of each of the two pods: together 100,000 flows.
const PORTS: u16 = 50_000;

/// The stage, and what is measured on it.
pub(crate) struct Bench<'a> {
    pub(crate) lab: &'a Lab,
    tracer: &'a str,
    pairs: usize,
    cluster: PathBuf,
    pub(crate) one_flow: Vec<SocketAddrV4>,
    pub(crate) flows: Vec<SocketAddrV4>,
    folder: PathBuf,
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl<'a> Bench<'a> {
    /// Has the node drop all datagrams to two of its pods.
    pub(crate) fn new(lab: &'a Lab, tracer: &'a Path, pairs: usize) -> Result<Self> {
        let pods = ["vault-0", "client"].map(|name| lab.pod(name).addresses().v4);
        let [first, second] = pods;
        let table = format!(
            "table ip lab-bench {{\n\
             chain drops {{\n\
             type filter hook forward priority filter; policy accept;\n\
             ip daddr {{ {first}, {second} }} udp dport 1-{PORTS} counter drop\n\
             }}\n\
             }}\n"
        );
        lab.node().run_with_input("nft", &["-f", "-"], &table)?;
        let folder = std::env::temp_dir().join(format!("lab-bench-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let cluster = folder.join("cluster.yaml");
        fs::write(&cluster, format!("{}---\n{BROKEN_POLICY}", lab.manifests()))?;
        let all = |ip| (1..=PORTS).map(move |port| SocketAddrV4::new(ip, port));
        Ok(Self {
            lab,
            tracer: tracer.to_str().context("the path of tracer is not UTF-8")?,
            pairs,
            cluster,
            one_flow: vec![SocketAddrV4::new(first, 9999)],
            flows: pods.into_iter().flat_map(all).collect(),
            folder,
        })
    }

    /// `tracer watch` by itself.
    pub(crate) fn watch(
        &self,
        configure: impl FnOnce(&mut std::process::Command),
    ) -> Result<Process> {
        Process::start(self.lab, self.tracer, "watching drops", |command| {
            command.args(["watch", "-o", "json", "--cluster"]);
            command.arg(&self.cluster);
            // Not from an agent that this machine may have.
            command.arg("--socket").arg(self.folder.join("none.sock"));
            configure(command);
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// An agent as it is installed: it pins its programs, and keeps a ledger. Nothing of it is to stay in
    /// this machine's kernel, so it pins where all is gone with it.
    fn agent(&self) -> Result<Process> {
        let bpffs = Bpffs::new()?;
        let folder = self.folder.join("agent");
        // A ledger of other programs' counts.
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        let agent = Process::start(self.lab, self.tracer, "\"address\"", |command| {
            command.args(["agent", "--metrics-addr", "127.0.0.1:0"]);
            command.args(["--node", "node-1", "--cluster"]);
            command.arg(&self.cluster);
            command.arg("--pin").arg(bpffs.path().join("tracer"));
            command.arg("--socket").arg(folder.join("agent.sock"));
        })?;
        Ok(agent.with(bpffs))
    }

    pub(crate) fn flood(&self, to: &[SocketAddrV4], until: Until) -> Result<Flooded> {
        udp_flood(self.lab.remote(), to, until)
    }

    /// Median ratio of the sender's rate with the tool to that without, runs interleaved; the order in
    /// a pair alternates.
    pub(crate) fn ratio(
        &self,
        to: &[SocketAddrV4],
        mut tool: impl FnMut() -> Result<Process>,
        mut see: impl FnMut(Process, Flooded) -> Result<()>,
    ) -> Result<f64> {
        let mut with = || -> Result<f64> {
            let before = newest_program();
            let process = tool()?;
            let flooded = self.flood(to, Until::Elapsed(RUN))?;
            see(process, flooded)?;
            none_since(before)?;
            Ok(flooded.rate())
        };
        Ok(median(self.ratios(to, &mut with)?))
    }

    /// The same with nothing in between: how far apart two runs of the same are here.
    fn noise(&self, to: &[SocketAddrV4]) -> Result<Vec<f64>> {
        self.ratios(to, &mut || Ok(self.flood(to, Until::Elapsed(RUN))?.rate()))
    }

    fn ratios(
        &self,
        to: &[SocketAddrV4],
        with: &mut dyn FnMut() -> Result<f64>,
    ) -> Result<Vec<f64>> {
        let mut ratios = Vec::with_capacity(self.pairs);
        let without = || Ok::<_, anyhow::Error>(self.flood(to, Until::Elapsed(RUN))?.rate());
        for pair in 0..self.pairs {
            ratios.push(if pair % 2 == 0 {
                let with = with()?;
                with / without()?
            } else {
                let without = without()?;
                with()? / without
            });
        }
        Ok(ratios)
    }

    /// The share of a CPU that a tool itself takes under the flood, once it is done with its start.
    pub(crate) fn cpu(
        &self,
        to: &[SocketAddrV4],
        mut tool: impl FnMut() -> Result<Process>,
    ) -> Result<f64> {
        let mut shares = Vec::with_capacity(CPU_RUNS);
        for _ in 0..CPU_RUNS {
            let before = newest_program();
            let process = tool()?;
            process.until_idle()?;
            let (cpu, start) = (process.cpu()?, Instant::now());
            self.flood(to, Until::Elapsed(CPU_RUN))?;
            let took = process.cpu()?.saturating_sub(cpu);
            shares.push(took.as_secs_f64() / start.elapsed().as_secs_f64());
            process.stop()?;
            none_since(before)?;
        }
        Ok(median(shares))
    }
}

/// The number of the program that was loaded last; they count up.
fn newest_program() -> u32 {
    let programs = loaded_programs().filter_map(Result::ok);
    programs.map(|program| program.id()).max().unwrap_or(0)
}

/// Waits until the kernel has let go of what was loaded later: it does so a little after a tool's end.
fn none_since(before: u32) -> Result<()> {
    let deadline = Instant::now() + GONE;
    while newest_program() > before {
        ensure!(
            Instant::now() < deadline,
            "someone's programs are still in the kernel"
        );
        std::thread::sleep(RUN / 100);
    }
    Ok(())
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One flow and many, with the agent and without.
pub(crate) fn measure(bench: &Bench<'_>, summary: &mut Summary) -> Result<()> {
    for (to, name) in [(&bench.one_flow, "1flow"), (&bench.flows, "100k")] {
        let bare = bench.flood(to, Until::Elapsed(RUN))?.rate();
        summary.add("flood", &format!("packets_per_s_{name}"), bare.round());
        let ratio = bench.ratio(to, || bench.agent(), |agent, _| agent.stop().map(drop))?;
        summary.add("flood", &format!("rate_ratio_{name}"), ratio);
        let cpu = bench.cpu(to, || bench.agent())?;
        summary.add("flood", &format!("agent_cpu_{name}"), cpu);
    }
    let noise = bench.noise(&bench.one_flow)?;
    let widest = noise.iter().map(|ratio| (ratio - 1.0).abs());
    summary.add("flood", "noise_widest", widest.fold(0.0, f64::max));
    summary.add("flood", "noise", median(noise));
    Ok(())
}
