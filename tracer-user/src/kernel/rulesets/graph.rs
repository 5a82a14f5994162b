//! Chains, and which of them a hook reaches.

use std::collections::{HashMap, HashSet};

use crate::decode::Point;
use crate::enforcer::{Backend, Dropper, Falls, Family, Owner};

/// A chain, as far as it matters here.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) family: Family,
    pub(super) table: String,
    pub(super) name: String,
    /// The hook that asks it.
    pub(super) hook: Option<Point>,
    /// How packets fall by its own rules and its policy.
    pub(super) falls: Falls,
    /// The chains of its table that its rules jump to.
    pub(super) calls: Vec<String>,
    /// It looks up where to go on: anywhere in its table.
    pub(super) calls_any: bool,
}

impl Chain {
    pub(super) fn new(family: Family, table: String, name: String) -> Self {
        Self {
            family,
            table,
            name,
            hook: None,
            falls: Falls::default(),
            calls: Vec::new(),
            calls_any: false,
        }
    }
}

/// Whose rules packets can fall by, hook by hook.
pub(super) fn droppers(backend: Backend, chains: &[Chain]) -> Vec<Dropper> {
    let mut by_table = HashMap::<_, Vec<usize>>::new();
    let mut by_name = HashMap::new();
    for (index, chain) in chains.iter().enumerate() {
        by_table
            .entry((chain.family, chain.table.as_str()))
            .or_default()
            .push(index);
        by_name.insert(
            (chain.family, chain.table.as_str(), chain.name.as_str()),
            index,
        );
    }
    let mut found = Vec::<Dropper>::new();
    for (base, chain) in chains.iter().enumerate() {
        let Some(point) = chain.hook else {
            continue;
        };
        let mut seen = HashSet::from([base]);
        let mut next = vec![base];
        while let Some(index) = next.pop() {
            let chain = &chains[index];
            if chain.falls.any() {
                add(&mut found, backend, point, chain);
            }
            let called = chain
                .calls
                .iter()
                .filter_map(|name| {
                    by_name.get(&(chain.family, chain.table.as_str(), name.as_str()))
                })
                .copied();
            let all = by_table
                .get(&(chain.family, chain.table.as_str()))
                .filter(|_| chain.calls_any)
                .into_iter()
                .flatten()
                .copied()
                // Nobody jumps to a chain that a hook asks.
                .filter(|index| chains[*index].hook.is_none());
            next.extend(called.chain(all).filter(|index| seen.insert(*index)));
        }
    }
    found
}

fn add(found: &mut Vec<Dropper>, backend: Backend, point: Point, chain: &Chain) {
    let calls = chain.calls.iter().map(String::as_str);
    let (owner, sign) = Owner::of_chain(backend, chain.family, &chain.table, &chain.name, calls);
    let same = found.iter_mut().find(|other| {
        other.family == chain.family
            && other.point == point
            && other.owner == owner
            && other.sign == sign
    });
    match same {
        Some(other) => other.falls = other.falls.or(chain.falls),
        None => found.push(Dropper {
            family: chain.family,
            point,
            backend,
            owner,
            sign,
            falls: chain.falls,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforcer::Sign;

    fn chain(name: &str, hook: Option<Point>, silent: bool, calls: &[&str]) -> Chain {
        let mut chain = Chain::new(Family::Ip, "filter".to_owned(), name.to_owned());
        chain.hook = hook;
        chain.falls.silent = silent;
        chain.calls = calls.iter().map(|&name| name.to_owned()).collect();
        chain
    }

    fn found(chains: &[Chain]) -> Vec<(Point, Owner)> {
        let droppers = droppers(Backend::Nft, chains);
        droppers.iter().map(|one| (one.point, one.owner)).collect()
    }

    #[test]
    fn a_hook_is_asked_what_it_reaches_and_nothing_else() {
        let chains = [
            chain(
                "FORWARD",
                Some(Point::Forward),
                false,
                &["KUBE-ROUTER-FORWARD"],
            ),
            chain(
                "KUBE-ROUTER-FORWARD",
                None,
                false,
                &["KUBE-POD-FW-A", "KUBE-POD-FW-B"],
            ),
            // In a circle, which the kernel would not let be.
            chain("KUBE-POD-FW-A", None, true, &["KUBE-ROUTER-FORWARD"]),
            chain("KUBE-POD-FW-B", None, true, &["gone"]),
            chain("ufw-unused", None, true, &[]),
            chain("INPUT", Some(Point::Input), true, &[]),
        ];
        assert_eq!(
            found(&chains),
            [
                (Point::Forward, Owner::KubeRouter),
                (Point::Input, Owner::HostFirewall)
            ]
        );
        let [_, input] = &droppers(Backend::Nft, &chains)[..] else {
            panic!();
        };
        let table = "ip filter".to_owned();
        let chain = "INPUT".to_owned();
        assert_eq!(input.sign, Sign::Place { chain, table });
    }

    #[test]
    fn where_a_map_says_where_to_go_on_any_chain_may_be_it() {
        let mut base = chain("FORWARD", Some(Point::Forward), false, &[]);
        base.calls_any = true;
        let chains = [
            base,
            chain("cali-tw-x", None, true, &[]),
            chain("OUTPUT", Some(Point::Output), false, &[]),
        ];
        assert_eq!(found(&chains), [(Point::Forward, Owner::CalicoIptables)]);
    }
}
