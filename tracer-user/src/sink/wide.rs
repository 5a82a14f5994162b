//! `-o wide`: everything of a drop that fits a line, in columns.

use std::io::{self, Write};

use super::{Sink, text};
use crate::decode::RawDrop;
use crate::record::{Drop, DropAction};

/// Writes a header and one line a drop, in columns that keep their minimum width.
#[derive(Debug)]
pub struct Wide<W> {
    out: W,
    headed: bool,
}

impl<W: Write> Wide<W> {
    /// Writes to `out`.
    pub const fn new(out: W) -> Self {
        Self { out, headed: false }
    }

    fn row(&mut self, cells: [&str; 14]) -> io::Result<()> {
        const WIDTHS: [usize; 14] = [30, 10, 5, 7, 24, 28, 8, 16, 14, 6, 10, 10, 24, 0];
        let mut line = String::with_capacity(256);
        for (cell, width) in cells.into_iter().zip(WIDTHS) {
            use std::fmt::Write as _;
            let _ = write!(line, "{cell:<width$}  ");
        }
        writeln!(self.out, "{}", line.trim_end())
    }
}

impl<W: Write + Send> Sink for Wide<W> {
    fn accept(&mut self, drop: &Drop, _raw: Option<&RawDrop>) -> io::Result<()> {
        if !self.headed {
            self.headed = true;
            self.row([
                "TIME",
                "NODE",
                "COUNT",
                "SIDE",
                "SOURCE",
                "DESTINATION",
                "PROTO",
                "CLASS",
                "REASON",
                "ACTION",
                "HOOK",
                "INTERFACE",
                "POLICY",
                "SYMPTOM",
            ])?;
        }
        let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
        self.row([
            &format!("{:.9}", drop.time),
            &drop.node,
            &drop.count.to_string(),
            &or_dash(drop.direction.map(crate::record::Direction::as_str)),
            &text::peer_with_port(drop.source.as_ref()),
            &text::destination(drop.destination.as_ref()),
            &text::protocol(drop),
            &or_dash(drop.class.map(crate::record::Class::as_str)),
            &drop.drop.reason,
            &or_dash(drop.drop.action.map(|action| match action {
                DropAction::Drop => "drop",
                DropAction::Reject => "reject",
            })),
            &or_dash(text::hook(drop).as_deref()),
            &or_dash(text::interface(drop).as_deref()),
            &text::policy(drop.policy.as_ref()),
            &or_dash(drop.symptom.as_deref()),
        ])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
