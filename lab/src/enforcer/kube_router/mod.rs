//! Netfilter rules as K3s's own kube-router installs them, REJECT and all: the node reaches its pods
//! whatever the policies say, and so do echo requests.

mod emit;
mod names;
mod policies;

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::{Backend, Enforcer};
use crate::lab::Lab;
use crate::netns::Netns;
use crate::policy::{Pods, Policies};
use emit::{Input, Ruleset};
use names::Ip;

/// Cluster IP ranges (`--service-cluster-ip-range`).
const SERVICES: [(Ip, &str); 2] = [(Ip::V4, "10.43.0.0/16"), (Ip::V6, "fd00:10:43::/112")];

/// The kube-router enforcer.
#[derive(Debug)]
pub struct KubeRouter {
    legacy: bool,
    exempts_node: bool,
    /// Drops counted by chains that have been replaced.
    before: u64,
    /// What is in force: chains of pods and policies, by family.
    chains: Vec<(Ip, String)>,
    sets: Vec<String>,
    installed: bool,
}

impl KubeRouter {
    /// Over [`Backend::IptablesNft`] or [`Backend::IptablesLegacy`], as on a node whichever comes first
    /// in `PATH`; there is no other backend in K3s's version.
    pub fn new(backend: Backend) -> Self {
        Self {
            legacy: backend == Backend::IptablesLegacy,
            exempts_node: true,
            before: 0,
            chains: Vec::new(),
            sets: Vec::new(),
            installed: false,
        }
    }

    /// The same without the rule that lets a node reach its own pods, from the next sync on: the kubelet's
    /// probes are policed then, as the incident's dataplane did.
    #[must_use]
    pub const fn policing_the_node(mut self) -> Self {
        self.exempts_node = false;
        self
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

    /// Packets counted by the rules that are there, of chains that are `wanted`.
    fn counted(&self, node: &Netns, wanted: impl Fn(Ip, &str) -> bool) -> Result<u64> {
        let mut sum = 0;
        for (ip, _) in SERVICES {
            let saved = node.run(&self.tool(ip, "save"), &["-c", "-t", "filter"])?;
            for line in saved.lines().filter(|line| drops(line)) {
                // `[packets:bytes] -A CHAIN ...`
                let rule = line.strip_prefix('[').and_then(|rest| {
                    let (packets, rest) = rest.split_once(':')?;
                    let (_, rest) = rest.split_once("] -A ")?;
                    Some((packets.parse::<u64>().ok()?, rest.split_once(' ')?.0))
                });
                let (packets, chain) = rule.with_context(|| format!("no counter in `{line}`"))?;
                if wanted(ip, chain) {
                    sum += packets;
                }
            }
        }
        Ok(sum)
    }

    /// Takes over what chains have counted to which nothing leads any more, and deletes them.
    fn retire(&mut self, node: &Netns, old: &[(Ip, String)]) -> Result<()> {
        let is_old = |ip, chain: &str| old.iter().any(|(own, name)| *own == ip && name == chain);
        self.before += self.counted(node, is_old)?;
        for (ip, _) in SERVICES {
            let chains = || old.iter().filter(|(own, _)| *own == ip);
            let mut text = String::from("*filter\n");
            for verb in ["-F", "-X"] {
                for (_, chain) in chains() {
                    // Writing to a string cannot fail.
                    let _ = writeln!(text, "{verb} {chain}");
                }
            }
            text.push_str("COMMIT\n");
            node.run_with_input(&self.tool(ip, "restore"), &["--noflush"], &text)?;
        }
        Ok(())
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

    fn sync(&mut self, node: &Netns, pods: &Pods, policies: &Policies) -> Result<()> {
        let pods = pods.as_slice();
        let resolved = policies.resolve(pods)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let version = now.as_nanos().to_string();
        let (mut chains, mut sets) = (Vec::new(), Vec::new());
        for (ip, services) in SERVICES {
            let rules = Ruleset::new(&Input {
                policies: &resolved,
                pods,
                ip,
                services,
                version: &version,
                exempts_node: self.exempts_node,
            });
            node.run_with_input("ipset", &["restore", "-exist"], &rules.restore_sets(ip))?;
            let restore = self.tool(ip, "restore");
            if self.installed {
                node.run_with_input(&restore, &["--noflush"], &rules.restore_over())?;
            } else {
                let no_args: [&str; 0] = [];
                node.run_with_input(&restore, &no_args, &rules.restore())?;
            }
            chains.extend(rules.versioned().map(|chain| (ip, chain.clone())));
            sets.extend(rules.sets.into_keys());
        }
        self.installed = true;
        let old = std::mem::replace(&mut self.chains, chains);
        self.retire(node, &old)?;
        self.destroy_sets(node, &sets)?;
        self.sets = sets;
        Ok(())
    }

    fn dropped(&self, lab: &Lab) -> Result<u64> {
        if !self.installed {
            return Ok(self.before);
        }
        Ok(self.before + self.counted(lab.node(), |_, _| true)?)
    }

    fn remove(&mut self, lab: &Lab) -> Result<()> {
        if !self.installed {
            return Ok(());
        }
        // Unhooked first, then counted: what is dropped until then is in the count.
        let hooks = "*filter\n-F INPUT\n-F FORWARD\n-F OUTPUT\nCOMMIT\n";
        for (ip, _) in SERVICES {
            let restore = self.tool(ip, "restore");
            lab.node().run_with_input(&restore, &["--noflush"], hooks)?;
        }
        self.before += self.counted(lab.node(), |_, _| true)?;
        let empty =
            "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";
        for (ip, _) in SERVICES {
            let no_args: [&str; 0] = [];
            lab.node()
                .run_with_input(&self.tool(ip, "restore"), &no_args, empty)?;
        }
        self.installed = false;
        self.chains.clear();
        self.destroy_sets(lab.node(), &[])
    }
}

#[cfg(test)]
mod tests;
