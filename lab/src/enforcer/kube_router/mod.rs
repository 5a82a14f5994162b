//! Netfilter rules as K3s's own kube-router installs them, REJECT and all: the node reaches its pods
//! whatever the policies say, and so do echo requests.

mod emit;
mod names;
mod policies;

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::{Backend, Enforcer};
use crate::lab::Lab;
use crate::netns::Netns;
use crate::policy::{PodFacts, Policies};
use emit::{Input, Ruleset};
use names::Ip;

/// Cluster IP ranges (`--service-cluster-ip-range`).
const SERVICES: [(Ip, &str); 2] = [(Ip::V4, "10.43.0.0/16"), (Ip::V6, "fd00:10:43::/112")];

/// The kube-router enforcer.
#[derive(Debug)]
pub struct KubeRouter {
    legacy: bool,
    /// Drops counted by rulesets that have been replaced.
    before: u64,
    sets: Vec<String>,
    installed: bool,
}

impl KubeRouter {
    /// Over [`Backend::IptablesNft`] or [`Backend::IptablesLegacy`], as on a node whichever comes first
    /// in `PATH`; there is no other backend in K3s's version.
    pub fn new(backend: Backend) -> Self {
        Self {
            legacy: backend == Backend::IptablesLegacy,
            before: 0,
            sets: Vec::new(),
            installed: false,
        }
    }

    /// `restore` or `save` of the family and backend.
    fn tool(&self, ip: Ip, verb: &str) -> String {
        let family = match ip {
            Ip::V4 => "iptables",
            Ip::V6 => "ip6tables",
        };
        let backend = if self.legacy { "legacy" } else { "nft" };
        format!("{family}-{backend}-{verb}")
    }

    /// Packets counted by the rules in force.
    fn counted(&self, node: &Netns) -> Result<u64> {
        let mut sum = 0;
        for (ip, _) in SERVICES {
            let saved = node.run(&self.tool(ip, "save"), &["-c", "-t", "filter"])?;
            for line in saved.lines().filter(|line| drops(line)) {
                let packets = line
                    .strip_prefix('[')
                    .and_then(|rest| rest.split_once(':'))
                    .and_then(|(packets, _)| packets.parse::<u64>().ok());
                sum += packets.with_context(|| format!("no counter in `{line}`"))?;
            }
        }
        Ok(sum)
    }

    fn destroy_sets(&mut self, node: &Netns, keep: &[String]) -> Result<()> {
        for set in self.sets.drain(..).filter(|set| !keep.contains(set)) {
            node.run("ipset", &["destroy", &set])?;
        }
        Ok(())
    }
}

/// Whether a line of `iptables-save -c` is a rule that ends packets.
fn drops(line: &str) -> bool {
    line.contains(" -j REJECT") || line.ends_with(" -j DROP")
}

impl Enforcer for KubeRouter {
    fn name(&self) -> &'static str {
        "kube-router"
    }

    fn install(&mut self, lab: &Lab, policies: &Policies) -> Result<()> {
        let pods = PodFacts::all();
        let resolved = policies.resolve(&pods)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let version = now.as_nanos().to_string();
        if self.installed {
            self.before += self.counted(lab.node())?;
        }
        let mut sets = Vec::new();
        for (ip, services) in SERVICES {
            let rules = Ruleset::new(&Input {
                policies: &resolved,
                pods: &pods,
                ip,
                services,
                version: &version,
            });
            let node = lab.node();
            node.run_with_input("ipset", &["restore", "-exist"], &rules.restore_sets(ip))?;
            // Without `--noflush`: what was there before goes in the same step.
            let no_args: [&str; 0] = [];
            node.run_with_input(&self.tool(ip, "restore"), &no_args, &rules.restore())?;
            sets.extend(rules.sets.into_keys());
        }
        self.installed = true;
        self.destroy_sets(lab.node(), &sets)?;
        self.sets = sets;
        Ok(())
    }

    fn dropped(&self, lab: &Lab) -> Result<u64> {
        if !self.installed {
            return Ok(self.before);
        }
        Ok(self.before + self.counted(lab.node())?)
    }

    fn remove(&mut self, lab: &Lab) -> Result<()> {
        if !self.installed {
            return Ok(());
        }
        self.before += self.counted(lab.node())?;
        let empty =
            "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";
        for (ip, _) in SERVICES {
            let no_args: [&str; 0] = [];
            lab.node()
                .run_with_input(&self.tool(ip, "restore"), &no_args, empty)?;
        }
        self.installed = false;
        self.destroy_sets(lab.node(), &[])
    }
}

#[cfg(test)]
mod tests;
