//! What `--last` and `--since` answer from.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;

use super::Request;

/// The most recent drops, bounded by number and by bytes.
#[derive(Debug)]
pub struct History {
    lines: VecDeque<(Timestamp, Arc<str>)>,
    bytes: usize,
    most_lines: usize,
    most_bytes: usize,
}

impl Default for History {
    /// 10,000 drops, 8 MiB.
    fn default() -> Self {
        Self::new(10_000, 8 << 20)
    }
}

impl History {
    /// Keeps `most_lines` drops and `most_bytes` bytes of JSON at most.
    pub fn new(most_lines: usize, most_bytes: usize) -> Self {
        Self {
            lines: VecDeque::new(),
            bytes: 0,
            most_lines,
            most_bytes,
        }
    }

    /// Adds the newest, forgets the oldest where there is no room.
    pub fn push(&mut self, time: Timestamp, line: Arc<str>) {
        self.bytes += line.len();
        self.lines.push_back((time, line));
        while self.lines.len() > self.most_lines || self.bytes > self.most_bytes {
            let Some((_, oldest)) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
        }
    }

    /// Drops it keeps, and their bytes.
    pub fn size(&self) -> (usize, usize) {
        (self.lines.len(), self.bytes)
    }

    /// What a client asks for, oldest first.
    pub fn answer(&self, request: &Request) -> Vec<Arc<str>> {
        if request.last.is_none() && request.since.is_none() {
            return Vec::new();
        }
        let since = request.since.unwrap_or(Timestamp::MIN);
        let mut lines: Vec<_> = self
            .lines
            .iter()
            .rev()
            .filter(|(time, _)| *time >= since)
            .take(request.last.unwrap_or(usize::MAX))
            .map(|(_, line)| Arc::clone(line))
            .collect();
        lines.reverse();
        lines
    }
}
