//! One firewall rule at one hook, with the rule's own packet counter.

use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use tracer_policy::model::Protocol;

use crate::netns::Netns;

/// Whose tables the rule lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `iptables-nft`: xtables syntax over `nf_tables`.
    IptablesNft,
    /// `iptables-legacy`: the old kernel tables.
    IptablesLegacy,
    /// `nft`: `nf_tables` proper.
    Nftables,
}

/// The chain and netfilter hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets for this host.
    Input,
    /// Packets passing through.
    Forward,
    /// Packets of this host's own processes.
    Output,
}

impl Hook {
    const fn chain(self) -> &'static str {
        match self {
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
        }
    }
}

/// What happens to a matching packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Dropped silently.
    Drop,
    /// Dropped, the sender told by an ICMP port unreachable.
    Reject,
    /// Dropped, the sender told by a TCP reset.
    RejectWithReset,
    /// Let through, and counted.
    Accept,
}

/// A rule: matches one destination, optionally one source and one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Tables.
    pub backend: Backend,
    /// Hook.
    pub hook: Hook,
    /// Protocol; ICMP of the destination's family matches echo requests only, so that neighbour
    /// discovery goes on.
    pub protocol: Protocol,
    /// Source.
    pub source: Option<IpAddr>,
    /// Destination; also says which family the rule is for.
    pub destination: IpAddr,
    /// Destination port, for protocols that have one.
    pub port: Option<u16>,
    /// What happens.
    pub verdict: Verdict,
}

/// A rule in force in a namespace.
#[derive(Debug)]
pub struct InstalledRule<'a> {
    rule: Rule,
    netns: &'a Netns,
}

impl Rule {
    /// Puts the rule in force in `netns`. One at a time for each backend and family.
    pub fn install(self, netns: &Netns) -> Result<InstalledRule<'_>> {
        ensure!(
            self.source
                .is_none_or(|ip| ip.is_ipv4() == self.destination.is_ipv4()),
            "source and destination of a rule are of one family"
        );
        if self.backend == Backend::Nftables {
            netns.run_with_input("nft", &["-f", "-"], &self.nft_table())?;
        } else {
            netns.run(self.iptables(), &self.iptables_args())?;
        }
        Ok(InstalledRule { rule: self, netns })
    }

    const fn iptables(&self) -> &'static str {
        match (self.backend, self.destination.is_ipv4()) {
            (Backend::IptablesLegacy, true) => "iptables-legacy",
            (Backend::IptablesLegacy, false) => "ip6tables-legacy",
            (_, true) => "iptables-nft",
            (_, false) => "ip6tables-nft",
        }
    }

    fn iptables_args(&self) -> Vec<String> {
        let mut args = vec![
            "-w".to_owned(),
            "-A".to_owned(),
            self.hook.chain().to_owned(),
        ];
        let mut add = |words: &[&str]| args.extend(words.iter().map(|&word| word.to_owned()));
        let name = match self.protocol {
            Protocol::Icmpv6 => "icmpv6".to_owned(),
            other => other.to_string().to_lowercase(),
        };
        add(&["-p", &name]);
        match self.protocol {
            Protocol::Icmp => add(&["--icmp-type", "echo-request"]),
            Protocol::Icmpv6 => add(&["--icmpv6-type", "echo-request"]),
            _ => {}
        }
        if let Some(source) = self.source {
            add(&["-s", &source.to_string()]);
        }
        add(&["-d", &self.destination.to_string()]);
        if let Some(port) = self.port {
            add(&["--dport", &port.to_string()]);
        }
        match self.verdict {
            Verdict::Drop => add(&["-j", "DROP"]),
            Verdict::Reject => add(&["-j", "REJECT"]),
            Verdict::RejectWithReset => add(&["-j", "REJECT", "--reject-with", "tcp-reset"]),
            Verdict::Accept => add(&["-j", "ACCEPT"]),
        }
        args
    }

    const fn nft_family(&self) -> &'static str {
        if self.destination.is_ipv4() {
            "ip"
        } else {
            "ip6"
        }
    }

    fn nft_table(&self) -> String {
        let family = self.nft_family();
        let mut matches = match self.protocol {
            Protocol::Icmp => "icmp type echo-request ".to_owned(),
            Protocol::Icmpv6 => "icmpv6 type echo-request ".to_owned(),
            other => format!("meta l4proto {} ", other.number()),
        };
        if let Some(source) = self.source {
            let _ = write!(matches, "{family} saddr {source} ");
        }
        let _ = write!(matches, "{family} daddr {} ", self.destination);
        if let Some(port) = self.port {
            let _ = write!(matches, "th dport {port} ");
        }
        let verdict = match self.verdict {
            Verdict::Drop => "drop",
            Verdict::Reject => "reject",
            Verdict::RejectWithReset => "reject with tcp reset",
            Verdict::Accept => "accept",
        };
        format!(
            "table {family} lab-rule {{\n\
               chain rules {{\n\
                 type filter hook {} priority filter; policy accept;\n\
                 {matches}counter {verdict}\n\
               }}\n\
             }}\n",
            self.hook.chain().to_lowercase()
        )
    }
}

impl InstalledRule<'_> {
    /// Packets that matched, by the rule's own counter.
    pub fn packets(&self) -> Result<u64> {
        let rule = &self.rule;
        if rule.backend == Backend::Nftables {
            let args = ["-j", "list", "table", rule.nft_family(), "lab-rule"];
            let listing: serde_json::Value = serde_json::from_str(&self.netns.run("nft", &args)?)?;
            return listing["nftables"]
                .as_array()
                .into_iter()
                .flatten()
                .flat_map(|item| item["rule"]["expr"].as_array().into_iter().flatten())
                .find_map(|expression| expression["counter"]["packets"].as_u64())
                .context("nft listed no counter");
        }
        let args = ["-w", "-L", rule.hook.chain(), "-v", "-x", "-n"];
        let listing = self.netns.run(rule.iptables(), &args)?;
        // Two lines of heading, then the only rule: packets, bytes, target, ...
        listing
            .lines()
            .nth(2)
            .and_then(|line| line.split_whitespace().next())
            .and_then(|count| count.parse().ok())
            .with_context(|| format!("no counter in: {listing}"))
    }

    /// Takes the rule out.
    pub fn remove(self) -> Result<()> {
        let rule = &self.rule;
        if rule.backend == Backend::Nftables {
            let args = ["delete", "table", rule.nft_family(), "lab-rule"];
            self.netns.run("nft", &args)?;
        } else {
            let args = ["-w", "-F", rule.hook.chain()];
            self.netns.run(rule.iptables(), &args)?;
        }
        Ok(())
    }
}
