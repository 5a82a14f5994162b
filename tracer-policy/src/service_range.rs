//! The range that Services get their addresses from, as far as those there are give it away.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::cluster::Cluster;

/// A range is not narrower than this: the API server takes none so small that few Services fit.
const NARROWEST: (u8, u8) = (24, 120);
/// Nor wider: what spans more is of several ranges.
const WIDEST: (u8, u8) = (12, 108);

/// The narrowest range that holds every ClusterIP of a family; `None` where there is none, or where nodes and
/// pods have addresses of it.
pub(crate) fn of(cluster: &Cluster, v4: bool) -> Option<IpNet> {
    let mut ips = cluster.services().flat_map(cluster_ips);
    let first = ips.by_ref().find(|ip| ip.is_ipv4() == v4)?;
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)) << 96,
        IpAddr::V6(ip) => u128::from(ip),
    };
    let differing = ips
        .filter(|ip| ip.is_ipv4() == v4)
        .fold(0, |differing, ip| differing | (bits(ip) ^ bits(first)));
    let common = u8::try_from(differing.leading_zeros()).unwrap_or(u8::MAX);
    let range: IpNet = match first {
        IpAddr::V4(ip) => Ipv4Net::new(ip, common.min(NARROWEST.0))
            .ok()?
            .trunc()
            .into(),
        IpAddr::V6(ip) => Ipv6Net::new(ip, common.min(NARROWEST.1))
            .ok()?
            .trunc()
            .into(),
    };
    let widest = if v4 { WIDEST.0 } else { WIDEST.1 };
    (range.prefix_len() >= widest && !holds_nodes_or_pods(cluster, &range)).then_some(range)
}

/// Whether nodes or pods have addresses of a range, or may get some.
pub(crate) fn holds_nodes_or_pods(cluster: &Cluster, range: &IpNet) -> bool {
    cluster.nodes().any(|node| {
        let overlaps = |net: &IpNet| net.contains(range) || range.contains(net);
        node.addresses.iter().any(|own| range.contains(&own.ip))
            || node.pod_cidrs.iter().any(overlaps)
    })
}

/// A Service's own addresses come first, one of a family; a load balancer's after them.
pub(crate) fn cluster_ips(service: &crate::model::Service) -> impl Iterator<Item = IpAddr> + '_ {
    let first = service.ips.first().copied();
    let second = service.ips.get(1).copied();
    let other = second.filter(|ip| first.is_some_and(|first| first.is_ipv4() != ip.is_ipv4()));
    first.into_iter().chain(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Labels, ObjectRef, Service};

    fn seen(ips: &[&str]) -> [Option<String>; 2] {
        let mut cluster = Cluster::new();
        for (number, ip) in ips.iter().enumerate() {
            cluster.apply_service(Service {
                id: ObjectRef::new("n", number.to_string()),
                ips: vec![ip.parse().unwrap()],
                ports: Vec::new(),
                selector: Labels::new(),
                external_ips: Vec::new(),
                keeps_sources: false,
                publishes_not_ready: false,
            });
        }
        [true, false].map(|v4| of(&cluster, v4).map(|range| range.to_string()))
    }

    #[test]
    fn a_range_spans_the_addresses_there_are() {
        let v4 = |ips: &[&str]| seen(ips)[0].clone();
        assert_eq!(v4(&[]), None);
        assert_eq!(v4(&["10.43.0.1"]).as_deref(), Some("10.43.0.0/24"));
        assert_eq!(
            v4(&["10.43.0.1", "10.43.201.7"]).as_deref(),
            Some("10.43.0.0/16")
        );
        assert_eq!(
            v4(&["10.96.0.1", "10.109.3.7"]).as_deref(),
            Some("10.96.0.0/12")
        );
        // Of two ranges, or whatever it is.
        assert_eq!(v4(&["10.96.0.1", "172.20.0.1"]), None);
        assert_eq!(
            seen(&["10.43.0.1", "fd00:43::1", "fd00:43::a:1"]),
            [Some("10.43.0.0/24".into()), Some("fd00:43::/108".into())]
        );
    }
}
