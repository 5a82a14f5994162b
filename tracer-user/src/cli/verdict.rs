//! A verdict for people: the engine's own words, coloured.

use std::io::{self, Write};

use anstyle::Style as Paint;
use tracer_policy::explain::{Style, lines};
use tracer_policy::{Cluster, Flow, Verdict};

use super::color;

/// Both sides, every isolating policy, and the rule that came nearest, quoted.
pub(super) fn write(
    out: &mut impl Write,
    flow: &Flow,
    verdict: &Verdict,
    cluster: &Cluster,
) -> io::Result<()> {
    for line in lines(cluster, flow, verdict) {
        for span in line.0 {
            let paint = match span.style {
                Style::Plain | Style::Quote => Paint::new(),
                Style::Heading => Paint::new().bold(),
                Style::Allowed => color::GOOD,
                Style::Denied | Style::Mark => color::ERROR,
                Style::Unknown => color::WARNING,
                Style::Dim => Paint::new().dimmed(),
            };
            write!(out, "{paint}{}{paint:#}", span.text)?;
        }
        writeln!(out)?;
    }
    Ok(())
}
