//! What the lab's tests share.

use std::env;
use std::io::{self, Write};

use lab::{Lab, Wiring};

/// A lab, or `None` and a line that says why where this process may not build one. With
/// `TRACER_REQUIRE_ALL=1` that is a failure.
pub fn lab(wiring: Wiring) -> Option<Lab> {
    if !rustix::process::geteuid().is_root() && env::var_os("TRACER_REQUIRE_ALL").is_none() {
        // Not captured by the test harness, so that it is seen.
        let _ = writeln!(io::stderr(), "SKIPPED: network namespaces need root");
        return None;
    }
    Some(Lab::new(wiring).expect("a lab"))
}
