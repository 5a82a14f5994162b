//! From recorded drops to the policies that let them through: the way that `suggest` and `report` share.

use std::collections::HashMap;

use tracer_policy::{Advice, Cluster, Flow, suggest};

use crate::record::{Drop, Peer};

/// A dropped packet's two ends, by who opened the connection.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// Who opened it.
    pub client: &'a Peer,
    /// Whom it was opened to.
    pub server: &'a Peer,
    /// Whether the packet was on its way back.
    pub answer: bool,
}

/// Who opened what the packet belonged to; `None` where an end is not known.
pub fn ends(drop: &Drop) -> Option<Ends<'_>> {
    let (source, destination) = (drop.source.as_ref()?, drop.destination.as_ref()?);
    let has = |flag: &str| drop.tcp_flags.iter().flatten().any(|set| set == flag);
    // In the middle of a connection the lower port is the server's.
    let answer = if has("SYN") {
        has("ACK")
    } else {
        drop.tcp_flags.is_some() && source.port < destination.port
    };
    let (client, server) = if answer {
        (destination, source)
    } else {
        (source, destination)
    };
    Some(Ends {
        client,
        server,
        answer,
    })
}

/// Flows in the order they were first seen, each once.
#[derive(Debug, Default)]
pub struct Flows {
    all: Vec<Flow>,
    places: HashMap<Flow, usize>,
}

impl Flows {
    /// Takes a flow, unless `most` others are there already; its place among them all.
    pub fn add(&mut self, flow: Flow, most: usize) -> Option<usize> {
        if let Some(place) = self.places.get(&flow) {
            return Some(*place);
        }
        let place = self.all.len();
        if place >= most {
            return None;
        }
        self.all.push(flow.clone());
        self.places.insert(flow, place);
        Some(place)
    }

    /// All of them.
    pub fn as_slice(&self) -> &[Flow] {
        &self.all
    }
}

/// What lets dropped flows through, each suggestion proven.
///
/// What a dataplane lets through whatever policies say, it did not let through here: the cluster's
/// profile loses its exemptions.
pub fn advise(cluster: &mut Cluster, dropped: &Flows) -> Advice {
    let strict = cluster.profile().without_exemptions();
    cluster.set_profile(Some(strict));
    suggest(cluster, dropped.as_slice())
}
