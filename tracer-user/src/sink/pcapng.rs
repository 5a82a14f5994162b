//! `--pcap`: dropped packets for Wireshark, each with a comment that says who denied it.
//!
//! pcapng as in draft-ietf-opsawg-pcapng: a section header, one interface description for each
//! interface seen, enhanced packet blocks with nanosecond timestamps.

use std::collections::HashMap;
use std::io::{self, Write};

use super::{Sink, text};
use crate::decode::RawDrop;
use crate::record::Drop;

/// `LINKTYPE_RAW`: the packet begins with its IPv4 or IPv6 header.
const LINKTYPE_RAW: u16 = 101;
/// Bytes of a packet the kernel side keeps.
const SNAPLEN: u32 = 128;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const OPT_COMMENT: u16 = 1;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;

/// Writes a pcapng file.
#[derive(Debug)]
pub struct Pcapng<W> {
    out: W,
    /// Interface name → its number in the file.
    interfaces: HashMap<String, u32>,
    block: Vec<u8>,
}

impl<W: Write> Pcapng<W> {
    /// Writes the file's head to `out`, which should be buffered.
    ///
    /// # Errors
    /// What `out` says.
    pub fn new(out: W) -> io::Result<Self> {
        let mut file = Self {
            out,
            interfaces: HashMap::new(),
            block: Vec::with_capacity(512),
        };
        file.block.extend(0x1a2b_3c4d_u32.to_le_bytes()); // byte order
        file.block.extend(1_u16.to_le_bytes()); // version 1.0
        file.block.extend(0_u16.to_le_bytes());
        file.block.extend(u64::MAX.to_le_bytes()); // section length unknown
        file.write_block(SECTION_HEADER)?;
        Ok(file)
    }

    fn interface(&mut self, name: &str) -> io::Result<u32> {
        if let Some(number) = self.interfaces.get(name) {
            return Ok(*number);
        }
        self.block.extend(LINKTYPE_RAW.to_le_bytes());
        self.block.extend(0_u16.to_le_bytes());
        self.block.extend(SNAPLEN.to_le_bytes());
        self.option(IF_NAME, name.as_bytes());
        self.option(IF_TSRESOL, &[9]); // 10^-9 s
        self.end_of_options();
        self.write_block(INTERFACE_DESCRIPTION)?;
        let number = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
        self.interfaces.insert(name.to_owned(), number);
        Ok(number)
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.block.extend(code.to_le_bytes());
        self.block.extend(length.to_le_bytes());
        self.block.extend(&value[..usize::from(length)]);
        self.pad();
    }

    fn end_of_options(&mut self) {
        self.block.extend([0; 4]);
    }

    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn write_block(&mut self, kind: u32) -> io::Result<()> {
        // Type, length, body, length again.
        let length = u32::try_from(self.block.len() + 12)
            .unwrap_or(u32::MAX)
            .to_le_bytes();
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&length)?;
        self.out.write_all(&self.block)?;
        self.out.write_all(&length)?;
        self.block.clear();
        Ok(())
    }
}

impl<W: Write + Send> Sink for Pcapng<W> {
    fn accept(&mut self, drop: &Drop, raw: Option<&RawDrop>) -> io::Result<()> {
        let Some(raw) = raw else { return Ok(()) };
        let name = drop.drop.interface.as_deref().unwrap_or("unknown");
        let interface = self.interface(name)?;
        let nanos = u64::try_from(drop.time.as_nanosecond()).unwrap_or(0);
        let captured = u32::try_from(raw.packet.len()).unwrap_or(u32::MAX);
        self.block.extend(interface.to_le_bytes());
        // The upper half first, each half in the file's byte order.
        self.block.extend(nanos.rotate_left(32).to_le_bytes());
        self.block.extend(captured.to_le_bytes());
        self.block.extend(raw.length.max(captured).to_le_bytes());
        self.block.extend(&raw.packet);
        self.pad();
        let comment = format!(
            "{} {}: {}{}",
            drop.drop.reason,
            drop.class.map_or("", crate::record::Class::as_str),
            text::policy(drop.policy.as_ref()),
            drop.hint
                .as_ref()
                .map(|hint| format!("; {hint}"))
                .unwrap_or_default(),
        );
        self.option(OPT_COMMENT, comment.as_bytes());
        self.end_of_options();
        self.write_block(ENHANCED_PACKET)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::decode::{DropReason, Location, Story};

    /// Splits a file into blocks, checking both lengths of each.
    fn blocks(mut file: &[u8]) -> Vec<(u32, &[u8])> {
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let length = number(&file[4..8]) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(number(&file[length - 4..length]) as usize, length);
            blocks.push((number(&file[..4]), &file[8..length - 4]));
            file = &file[length..];
        }
        blocks
    }

    #[test]
    fn packets_come_with_time_length_interface_and_comment() {
        let drop: Drop = serde_json::from_str(include_str!("../../tests/data/probe.json")).unwrap();
        let raw = RawDrop {
            ktime_ns: 1,
            count: 1,
            reason: DropReason {
                number: 1,
                name: "TC_EGRESS".into(),
            },
            location: Location {
                address: 0,
                symbol: None,
            },
            hook: None,
            action: None,
            interface: None,
            netns: None,
            mark: 0,
            length: 1500,
            flow: None,
            packet: Bytes::from_static(&[0x45, 1, 2, 3, 4]),
            story: Story::default(),
            inner: None,
        };
        let mut file = Vec::new();
        let mut sink = Pcapng::new(&mut file).unwrap();
        sink.accept(&drop, Some(&raw)).unwrap();
        sink.accept(&drop, Some(&raw)).unwrap();
        let blocks = blocks(&file);
        let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(
            kinds,
            [
                SECTION_HEADER,
                INTERFACE_DESCRIPTION,
                ENHANCED_PACKET,
                ENHANCED_PACKET
            ]
        );
        assert!(blocks[1].1.windows(5).any(|bytes| bytes == b"veth0"));
        let packet = blocks[2].1;
        let nanos = u64::try_from(drop.time.as_nanosecond()).unwrap();
        assert_eq!(packet[4..8], ((nanos >> 32) as u32).to_le_bytes());
        assert_eq!(packet[12..20], [5, 0, 0, 0, 0xdc, 5, 0, 0]);
        assert_eq!(packet[20..28], [0x45, 1, 2, 3, 4, 0, 0, 0]);
        let comment = b"TC_EGRESS kubelet-probe: vault/vault-policy; allow ingress";
        assert!(packet.windows(comment.len()).any(|bytes| bytes == comment));
    }
}
