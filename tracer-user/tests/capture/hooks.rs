//! At which of netfilter's hooks a packet was dropped: those that the whole product's tests do not come by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lab::plan::POD_GATEWAY;
use lab::traffic::udp_send;
use lab::{Family, Lab, Netns, Wiring, kernel};
use tracer::decode::{Chain, Hook};
use tracer::kernel::{Flavour, Options};

use crate::folded;
use crate::stage::{PACKETS, Rule, capture, capture_in, packets, possible};

/// Where a packet of the stage's loopback was, and where it came from or was to go.
#[test]
fn before_and_after_routing_are_named() {
    if !possible(&["nft", "ip"]) {
        return;
    }
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    for (hook, name) in [("prerouting", "PREROUTING"), ("postrouting", "POSTROUTING")] {
        for (to, flavour) in [(v4, Flavour::Btf), (v6, Flavour::Raw)] {
            routed(hook, name, to, flavour);
        }
    }
}

fn routed(hook: &'static str, name: &str, to: IpAddr, flavour: Flavour) {
    let options = Options {
        flavour: Some(flavour),
        ..Options::default()
    };
    let work = move || Rule::install(hook, "udp dport 4444", "drop").stops(to, 4444);
    let (drops, counters, _) = capture(&options, work, packets(PACKETS.into()));
    let what = format!("{name} {to} {flavour:?}: {counters:?} {drops:#?}");
    assert_eq!(folded(&drops), u64::from(PACKETS), "{what}");
    for drop in &drops {
        assert_eq!(drop.reason.name, kernel::reason("NETFILTER_DROP"), "{what}");
        assert_eq!(drop.hook, Some(Hook::Netfilter), "{what}");
        assert_eq!(drop.interface, Some((1, "lo".to_owned())), "{what}");
    }
    // The stack is walked for a flow's first packet only.
    let story = &drops[0].story;
    assert_eq!(story.chain, Chain::from_name(name), "{what}");
    // It leaves by the device that it comes in by.
    let (input, output) = (&story.devices.input, &story.devices.output);
    let came = name == "PREROUTING";
    assert_eq!((input.is_some(), output.is_some()), (came, !came), "{what}");
}

/// A frame that a bridge passes from port to port, and one that it takes for its own machine.
#[test]
fn the_bridges_own_hooks_are_named() {
    if !possible(&["nft", "ip"]) {
        return;
    }
    let lab = Lab::without_servers(Wiring::Bridge).expect("a lab");
    for family in [Family::V4, Family::V6] {
        for (hook, priority, br_netfilter, name) in [
            // `filter`, as the bridge's rules mostly are.
            ("forward", -200, true, Some("bridge FORWARD")),
            // br_netfilter asks who comes after it anew, at every hook by the same function.
            ("forward", 200, true, None),
            ("forward", 200, false, Some("bridge FORWARD")),
            ("input", -200, true, Some("bridge INPUT")),
        ] {
            let case = Case {
                hook,
                priority,
                br_netfilter,
                name,
            };
            bridged(&lab, family, case);
        }
    }
}

/// Where a bridge's rule is, and the hook that is to be told.
#[derive(Clone, Copy, Debug)]
struct Case {
    hook: &'static str,
    priority: i32,
    br_netfilter: bool,
    name: Option<&'static str>,
}

fn bridged(lab: &Lab, family: Family, case: Case) {
    let node = lab.node();
    let [from, other] = ["vault-0", "vault-1"].map(|pod| lab.pod(pod));
    let forward = case.hook == "forward";
    let (to, at) = if forward {
        (other.addresses(), other.host_interface())
    } else {
        (POD_GATEWAY, "cni0")
    };
    let to = to.of(family);
    let work = || {
        let asks = if case.br_netfilter { "1" } else { "0" };
        for key in ["iptables", "ip6tables"] {
            node.sysctl(&format!("net.bridge.bridge-nf-call-{key}"), asks)
                .expect("the bridge's setting");
        }
        let met = node.enter(|| {
            let rule = Rule::install_at(
                "bridge t",
                case.hook,
                case.priority,
                "udp dport 4444",
                "drop",
            );
            let to = SocketAddr::new(to, 4444);
            udp_send(from.netns(), to, PACKETS.into(), b"twelve bytes").expect("packets");
            let met = rule.until(PACKETS.into());
            rule.remove();
            met
        });
        let inode = node.inode().expect("an inode");
        (
            u32::try_from(inode).expect("32 bits"),
            met.expect("the node"),
        )
    };
    let (drops, counters, met) = capture_in(&Options::default(), work, packets(PACKETS.into()));
    let what = format!("{case:?} {family:?}: {counters:?} {drops:#?}");
    assert_eq!(met, u64::from(PACKETS), "{what}");
    assert_eq!(folded(&drops), met, "{what}");
    for drop in &drops {
        assert_eq!(drop.reason.name, kernel::reason("NETFILTER_DROP"), "{what}");
        assert_eq!(drop.hook, Some(Hook::Netfilter), "{what}");
        let flow = drop.flow.expect("a flow");
        assert_eq!(flow.destination, to, "{what}");
        assert_eq!(flow.destination_port, Some(4444), "{what}");
        // The bridge is asked when it has chosen the device.
        let interface = drop.interface.as_ref().map(|(_, name)| name.as_str());
        assert_eq!(interface, Some(at), "{what}");
    }
    let story = &drops[0].story;
    assert_eq!(story.chain, case.name.and_then(Chain::from_name), "{what}");
    let input = story.devices.input.as_ref().map(|device| device.index);
    assert_eq!(input, Some(index(node, from.host_interface())), "{what}");
    // What is for the bridge's own machine is on no way out.
    let output = story.devices.output.as_ref();
    let output = output.and_then(|device| device.name.as_deref());
    assert_eq!(output, forward.then_some(at), "{what}");
}

/// A device's number.
fn index(netns: &Netns, device: &str) -> u32 {
    let line = netns.run("ip", &["-o", "link", "show", "dev", device]);
    let line = line.expect("the device");
    let number = line.split(':').next().expect("a number");
    number.parse().expect("a number")
}
