//! Through which devices a packet came and was to go.

use tracer_common::{DropEvent, IFNAME, field};

use super::{Chain, Hook, Point};

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index in its network namespace; 0 where only its name is known.
    pub index: u32,
    /// Its name; where the packet has left it already, only the index is known.
    pub name: Option<String>,
}

/// Where a packet came in and where it was to go out, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// Received there.
    pub input: Option<Device>,
    /// To be sent there.
    pub output: Option<Device>,
}

/// Of a packet that was `at` a device when it was dropped.
pub(super) fn devices(
    event: &DropEvent,
    hook: Option<Hook>,
    chain: Option<Chain>,
    at: Option<&(u32, String)>,
) -> Devices {
    let Some((index, name)) = at else {
        return Devices::default();
    };
    let has = |field| event.fields & field != 0;
    let here = Some(Device {
        index: *index,
        name: Some(name.clone()),
    });
    let (input, output) = if has(field::CAME_IN) {
        let input = Device {
            index: event.other_number,
            name: None,
        };
        // A bridge hands what is for its own machine up to itself, which is no way out.
        let is_before = chain.is_some_and(|chain| {
            matches!(
                chain.point,
                Point::Ingress | Point::Prerouting | Point::Input
            )
        });
        (Some(input), if is_before { None } else { here })
    } else if has(field::FROM_ROUTE) {
        (None, here)
    } else {
        match (hook, chain.map(|chain| chain.point)) {
            // The route of a packet that is for this machine leads to its loopback.
            (_, Some(Point::Forward)) if has(field::TOWARDS) => (here, towards(event)),
            // Which one it is at is not known without the other.
            (_, Some(Point::Forward)) => (None, None),
            (_, Some(Point::Ingress | Point::Prerouting | Point::Input))
            | (Some(Hook::TcIngress | Hook::Xdp), _) => (here, None),
            (_, Some(Point::Output | Point::Postrouting | Point::Egress))
            | (Some(Hook::TcEgress), _) => (None, here),
            _ => (None, None),
        }
    };
    Devices { input, output }
}

fn towards(event: &DropEvent) -> Option<Device> {
    Some(Device {
        index: event.other_number,
        name: Some(device_name(&event.other)?),
    })
}

/// The name, if it is one.
pub(super) fn device_name(bytes: &[u8; IFNAME]) -> Option<String> {
    let name = bytes.split(|byte| *byte == 0).next()?;
    let valid = !name.is_empty()
        && name.len() < bytes.len()
        && name
            .iter()
            .all(|byte| byte.is_ascii_graphic() && *byte != b'/');
    valid.then(|| String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    fn of(fields: u32, hook: Hook, chain: Option<&str>) -> (Option<String>, Option<String>) {
        let mut event = DropEvent::new_zeroed();
        event.fields = fields;
        event.other_number = 7;
        event.other[..4].copy_from_slice(b"eth0");
        let at = (3, "cni0".to_owned());
        let chain = chain.and_then(Chain::from_name);
        let Devices { input, output } = devices(&event, Some(hook), chain, Some(&at));
        let show = |device: Device| device.name.unwrap_or_else(|| device.index.to_string());
        (input.map(show), output.map(show))
    }

    #[test]
    fn one_device_is_told_by_the_hook() {
        let (here, none) = (Some("cni0".to_owned()), None);
        for chain in ["PREROUTING", "INPUT", "INGRESS"] {
            assert_eq!(
                of(0, Hook::Netfilter, Some(chain)),
                (here.clone(), none.clone())
            );
        }
        for chain in ["OUTPUT", "POSTROUTING", "EGRESS"] {
            assert_eq!(
                of(0, Hook::Netfilter, Some(chain)),
                (none.clone(), here.clone())
            );
        }
        assert_eq!(of(0, Hook::TcIngress, None), (here.clone(), none.clone()));
        assert_eq!(of(0, Hook::TcEgress, None), (none.clone(), here.clone()));
        assert_eq!(of(field::FROM_ROUTE, Hook::Netfilter, None), (none, here));
    }

    #[test]
    fn a_packet_that_passes_through_has_two() {
        let [cni0, eth0, seven] = ["cni0", "eth0", "7"].map(|name| Some(name.to_owned()));
        let forward = Some("FORWARD");
        assert_eq!(
            of(field::TOWARDS, Hook::Netfilter, forward),
            (cni0.clone(), eth0)
        );
        // Bridged, or past its routing.
        for chain in [forward, Some("POSTROUTING")] {
            assert_eq!(
                of(field::CAME_IN, Hook::Netfilter, chain),
                (seven.clone(), cni0.clone())
            );
        }
        assert_eq!(
            of(field::CAME_IN, Hook::TcEgress, None),
            (seven, cni0.clone())
        );
        // A bridge's, which is no way out of it.
        for chain in ["PREROUTING", "INPUT", "bridge INPUT"] {
            assert_eq!(
                of(field::CAME_IN, Hook::Netfilter, Some(chain)),
                (Some("7".to_owned()), None)
            );
        }
        // For this machine: its loopback is no way out.
        let input = of(field::TOWARDS, Hook::Netfilter, Some("INPUT"));
        assert_eq!(input, (cni0, None));
    }

    #[test]
    fn which_of_two_it_is_is_not_guessed() {
        assert_eq!(of(0, Hook::Netfilter, Some("FORWARD")), (None, None));
        assert_eq!(of(0, Hook::Netfilter, None), (None, None));
    }
}
