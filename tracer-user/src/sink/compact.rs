//! The stream for people: when, who → whom, which port, which class, which policy, what to do.

use std::io::{self, Write};

use jiff::tz::TimeZone;

use super::{Sink, text};
use crate::decode::RawDrop;
use crate::record::{Direction, Drop, DropAction};

/// Writes one line a drop; what to do goes to a second line where the first would grow too long.
#[derive(Debug)]
pub struct Compact<W> {
    out: W,
    width: usize,
    zone: TimeZone,
}

impl<W: Write> Compact<W> {
    /// Writes to `out` (styled; the writer strips where colour is not wanted), lines of `width`
    /// columns at most as far as names allow, times in `zone`.
    pub const fn new(out: W, width: usize, zone: TimeZone) -> Self {
        Self { out, width, zone }
    }
}

/// A piece of a line and how it is painted.
struct Line {
    painted: String,
    columns: usize,
}

impl Line {
    fn push(&mut self, style: anstyle::Style, piece: &str) {
        use std::fmt::Write as _;
        let _ = write!(self.painted, "{style}{piece}{style:#}");
        self.columns += piece.chars().count();
    }

    fn plain(&mut self, piece: &str) {
        self.painted.push_str(piece);
        self.columns += piece.chars().count();
    }
}

impl<W: Write + Send> Sink for Compact<W> {
    fn accept(&mut self, drop: &Drop, _raw: Option<&RawDrop>) -> io::Result<()> {
        let mut line = Line {
            painted: String::with_capacity(256),
            columns: 0,
        };
        let time = drop
            .time
            .to_zoned(self.zone.clone())
            .strftime("%H:%M:%S%.3f")
            .to_string();
        line.push(text::DIM, &time);
        line.push(
            text::BAD,
            match (drop.drop.action, drop.direction) {
                (Some(DropAction::Reject), Some(Direction::Ingress)) => " REJECT in  ",
                (Some(DropAction::Reject), Some(Direction::Egress)) => " REJECT out ",
                (Some(DropAction::Reject), None) => " REJECT ",
                (_, Some(Direction::Ingress)) => " DROP in  ",
                (_, Some(Direction::Egress)) => " DROP out ",
                (_, None) => " DROP ",
            },
        );
        line.push(text::NAME, &text::source(drop.source.as_ref()));
        line.plain(" → ");
        line.push(text::NAME, &text::destination(drop.destination.as_ref()));
        line.plain(&format!(" {}", text::protocol(drop)));
        if drop.count > 1 {
            line.plain(&format!(" ×{}", drop.count));
        }
        if let Some(class) = drop.class {
            line.plain("  ");
            line.push(
                if class.is_invisible() {
                    text::BAD
                } else {
                    anstyle::Style::new()
                },
                class.as_str(),
            );
        }
        if drop.policy.is_some() {
            line.plain("  ");
            line.push(text::POLICY, &text::policy(drop.policy.as_ref()));
        }
        self.out.write_all(line.painted.as_bytes())?;
        if let Some(hint) = &drop.hint {
            let cure = text::CURE;
            if line.columns + 2 + hint.chars().count() <= self.width {
                write!(self.out, "  {cure}{hint}{cure:#}")?;
            } else {
                // Under the first name, so that the eye finds it.
                write!(self.out, "\n             {cure}↳ {hint}{cure:#}")?;
            }
        }
        self.out.write_all(b"\n")?;
        for note in text::notes(drop) {
            let dim = text::DIM;
            writeln!(self.out, "             {dim}· {note}{dim:#}")?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
