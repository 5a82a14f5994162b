//! Building the network: namespaces, cables, addresses, routes, Services.
//!
//! ```text
//!   master 192.168.1.100 ── router ── node-1 10.10.0.11 ──┬── vault-0  10.42.1.10
//!   remote 198.51.100.10 ─────┤       (cni0 10.42.1.1)    ├── vault-1  10.42.1.11
//!                             │                           └── coredns  10.42.1.12
//!                             └────── node-2 10.10.0.12 ───── client   10.42.2.10
//! ```

use std::fmt::Write as _;

use anyhow::Result;

use crate::lab::Pod;
use crate::netns::Netns;
use crate::plan::{
    Addresses, MASTER, NODE, OTHER_NODE, OTHER_POD_GATEWAY, POD_GATEWAY, PODS, REMOTE, Wiring,
    service_translations,
};

/// Calico's fixed hardware address of every host-side cable end, and the link-local address it makes.
const CALI_MAC: &str = "ee:ee:ee:ee:ee:ee";
const CALI_GATEWAY_V4: &str = "169.254.1.1";
const CALI_GATEWAY_V6: &str = "fe80::ecee:eeff:feee:eeee";

/// Every namespace of a lab.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) router: Netns,
    pub(crate) master: Netns,
    pub(crate) node: Netns,
    pub(crate) other_node: Netns,
    pub(crate) remote: Netns,
    pub(crate) pods: Vec<Pod>,
}

impl Network {
    pub(crate) fn build(wiring: Wiring) -> Result<Self> {
        let network = Self {
            router: host("router")?,
            master: host("master")?,
            node: host("node-1")?,
            other_node: host("node-2")?,
            remote: host("remote")?,
            pods: PODS
                .iter()
                .map(|plan| {
                    let netns = host(&format!("{}/{}", plan.namespace, plan.name))?;
                    Ok(Pod::new(plan.clone(), netns, wiring))
                })
                .collect::<Result<_>>()?,
        };
        network.connect_hosts()?;
        for (node, name, gateway) in [
            (&network.node, "node-1", POD_GATEWAY),
            (&network.other_node, "node-2", OTHER_POD_GATEWAY),
        ] {
            let pods: Vec<_> = network
                .pods
                .iter()
                .filter(|pod| pod.plan().node == name)
                .collect();
            match wiring {
                Wiring::Bridge => connect_bridged(node, &pods, gateway)?,
                Wiring::Routed => connect_routed(node, &pods)?,
            }
            // `node-2` needs no Services: nobody under test sends from there to one.
        }
        network
            .node
            .run_with_input("nft", &["-f", "-"], &services())?;
        Ok(network)
    }

    /// Cables and routes between master, nodes and remote, by way of the router.
    fn connect_hosts(&self) -> Result<()> {
        let mut router = format!(
            "link add lan0 type bridge mcast_snooping 0\n\
             link set lan0 up\n\
             address add 10.10.0.1/16 dev lan0\n\
             address add fd00:10:10::1/64 dev lan0 nodad\n\
             link add master0 type veth peer name eth0 netns {master}\n\
             link set master0 up\n\
             address add 192.168.1.1/24 dev master0\n\
             address add fd00:192:168:1::1/64 dev master0 nodad\n\
             link add remote0 type veth peer name eth0 netns {remote}\n\
             link set remote0 up\n\
             address add 198.51.100.1/24 dev remote0\n\
             address add fd00:198:51:100::1/64 dev remote0 nodad\n",
            master = self.master.path().display(),
            remote = self.remote.path().display(),
        );
        for (port, node, netns) in [
            ("node1", NODE, &self.node),
            ("node2", OTHER_NODE, &self.other_node),
        ] {
            let third = if port == "node1" { 1 } else { 2 };
            let _ = write!(
                router,
                "link add {port} type veth peer name eth0 netns {path}\n\
                 link set {port} master lan0 up\n\
                 route add 10.42.{third}.0/24 via {v4}\n\
                 route add fd00:10:42:{third}::/64 via {v6}\n",
                path = netns.path().display(),
                v4 = node.v4,
                v6 = node.v6,
            );
        }
        batch(&self.router, &router)?;
        forwards(&self.router)?;

        for (netns, own, v4_prefix, gateway) in [
            (
                &self.master,
                MASTER,
                24,
                ("192.168.1.1", "fd00:192:168:1::1"),
            ),
            (
                &self.remote,
                REMOTE,
                24,
                ("198.51.100.1", "fd00:198:51:100::1"),
            ),
            (&self.node, NODE, 16, ("10.10.0.1", "fd00:10:10::1")),
            (
                &self.other_node,
                OTHER_NODE,
                16,
                ("10.10.0.1", "fd00:10:10::1"),
            ),
        ] {
            let (v4, v6) = gateway;
            batch(
                netns,
                &format!(
                    "link set eth0 up\n\
                     address add {}/{v4_prefix} dev eth0\n\
                     address add {}/64 dev eth0 nodad\n\
                     route add default via {v4}\n\
                     route add default via inet6 {v6}\n",
                    own.v4, own.v6,
                ),
            )?;
        }
        // Node to node directly, as flannel's host-gw backend routes.
        for (netns, third, other) in [(&self.node, 2, OTHER_NODE), (&self.other_node, 1, NODE)] {
            batch(
                netns,
                &format!(
                    "route add 10.42.{third}.0/24 via {}\n\
                     route add fd00:10:42:{third}::/64 via {}\n",
                    other.v4, other.v6,
                ),
            )?;
            forwards(netns)?;
        }
        Ok(())
    }
}

fn connect_bridged(node: &Netns, pods: &[&Pod], gateway: Addresses) -> Result<()> {
    let mut script = format!(
        "link add cni0 type bridge mcast_snooping 0\n\
         link set cni0 up\n\
         address add {}/24 dev cni0\n\
         address add {}/64 dev cni0 nodad\n",
        gateway.v4, gateway.v6,
    );
    for pod in pods {
        let _ = write!(
            script,
            "link add {cable} type veth peer name eth0 netns {path}\n\
             link set {cable} master cni0 up\n\
             link set {cable} type bridge_slave hairpin on\n",
            cable = pod.host_interface(),
            path = pod.netns().path().display(),
        );
    }
    batch(node, &script)?;
    node.sysctls(&[
        ("net.bridge.bridge-nf-call-iptables", "1"),
        ("net.bridge.bridge-nf-call-ip6tables", "1"),
    ])?;
    for pod in pods {
        let own = pod.addresses();
        batch(
            pod.netns(),
            &format!(
                "link set eth0 up\n\
                 address add {}/24 dev eth0\n\
                 address add {}/64 dev eth0 nodad\n\
                 route add default via {}\n\
                 route add default via inet6 {}\n",
                own.v4, own.v6, gateway.v4, gateway.v6,
            ),
        )?;
    }
    Ok(())
}

fn connect_routed(node: &Netns, pods: &[&Pod]) -> Result<()> {
    for pod in pods {
        let own = pod.addresses();
        let cable = pod.host_interface();
        batch(
            node,
            &format!(
                "link add {cable} address {CALI_MAC} type veth peer name eth0 netns {path}\n\
                 link set {cable} up\n\
                 route add {v4}/32 dev {cable} scope link\n\
                 route add {v6}/128 dev {cable}\n",
                path = pod.netns().path().display(),
                v4 = own.v4,
                v6 = own.v6,
            ),
        )?;
        node.sysctls(&[
            (&format!("net.ipv4.conf.{cable}.proxy_arp"), "1"),
            // Without it the kernel lets the pod wait up to 0.8 s for each answer.
            (&format!("net.ipv4.neigh.{cable}.proxy_delay"), "0"),
        ])?;
        batch(
            pod.netns(),
            &format!(
                "link set eth0 up\n\
                 address add {}/32 dev eth0\n\
                 address add {}/128 dev eth0 nodad\n\
                 route add {CALI_GATEWAY_V4} dev eth0 scope link\n\
                 route add default via {CALI_GATEWAY_V4} dev eth0\n\
                 route add default via inet6 {CALI_GATEWAY_V6} dev eth0\n",
                own.v4, own.v6,
            ),
        )?;
    }
    Ok(())
}

/// A namespace with its loopback up and without what would make a test's first second special:
/// duplicate address detection, router solicitations, reverse-path checks.
fn host(name: &str) -> Result<Netns> {
    let netns = Netns::new(name)?;
    netns.sysctls(&[
        ("net.ipv6.conf.all.accept_dad", "0"),
        ("net.ipv6.conf.default.accept_dad", "0"),
        ("net.ipv6.conf.default.dad_transmits", "0"),
        ("net.ipv6.conf.default.router_solicitations", "0"),
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
        // Echo sockets without raw sockets, for `traffic::ping`.
        ("net.ipv4.ping_group_range", "0 2147483647"),
        // Every REJECT tells its sender, so that tests see the same each time. (A stock node sends
        // a handful a second to one peer and leaves the others to time out.)
        ("net.ipv4.icmp_ratelimit", "0"),
        ("net.ipv6.icmp.ratelimit", "0"),
    ])?;
    batch(&netns, "link set lo up\n")?;
    Ok(netns)
}

fn forwards(netns: &Netns) -> Result<()> {
    netns.sysctls(&[
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv4.conf.all.send_redirects", "0"),
        ("net.ipv4.conf.default.send_redirects", "0"),
    ])
}

fn batch(netns: &Netns, script: &str) -> Result<()> {
    netns
        .run_with_input("ip", &["-batch", "-"], script)
        .map(drop)
}

/// The Services, translated before routing as kube-proxy does, in a table of their own that no
/// enforcer touches.
fn services() -> String {
    let mut text = String::new();
    for (family, is_v4) in [("ip", true), ("ip6", false)] {
        let _ = write!(text, "table {family} services {{\nchain translate {{\n");
        for translation in service_translations() {
            let (service, endpoint) = (translation.service, translation.endpoint);
            if service.is_ipv4() == is_v4 {
                let _ = writeln!(
                    text,
                    "{family} daddr {} {} dport {} dnat to {endpoint}",
                    service.ip(),
                    translation.protocol.to_string().to_lowercase(),
                    service.port(),
                );
            }
        }
        text.push_str("}\n");
        // -100 is `dstnat`, a name nft does not know at this hook.
        for hook in ["prerouting", "output"] {
            let _ = writeln!(
                text,
                "chain {hook} {{\ntype nat hook {hook} priority -100; policy accept;\njump translate\n}}"
            );
        }
        text.push_str("}\n");
    }
    text
}
