//! Where clouds tell an instance about itself, and hand out its credentials.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Metadata services: AWS, Google, Azure and most others; Alibaba; Oracle; AWS and Google over IPv6.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Azure's host, which hands out an instance's certificates, and is its DNS server as well.
const AZURE_HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16));

const DNS: u16 = 53;

/// Whether `ip`, at `port`, is a cloud's metadata service.
pub fn is_metadata_service(ip: IpAddr, port: Option<u16>) -> bool {
    let ip = ip.to_canonical();
    METADATA.contains(&ip) || ip == AZURE_HOST && port != Some(DNS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn azures_host_is_a_dns_server_too() {
        let is = |ip: &str, port| is_metadata_service(ip.parse().unwrap(), Some(port));
        for ip in [
            "169.254.169.254",
            "100.100.100.200",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd20:ce::254",
            "168.63.129.16",
            "::ffff:169.254.169.254",
        ] {
            assert!(is(ip, 80), "{ip}");
        }
        assert!(!is("168.63.129.16", 53));
        assert!(is("169.254.169.254", 53));
        assert!(!is("169.254.20.10", 53));
    }
}
