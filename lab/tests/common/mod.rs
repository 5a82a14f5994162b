//! What the lab's tests share.

use std::env;
use std::io::{self, Write};

use lab::{Lab, Wiring};

/// Whether this process may build labs; where not, says why. With `TRACER_REQUIRE_ALL=1` that is no
/// excuse.
pub fn may_build_labs() -> bool {
    if rustix::process::geteuid().is_root() || env::var_os("TRACER_REQUIRE_ALL").is_some() {
        return true;
    }
    // Not captured by the test harness, so that it is seen.
    let _ = writeln!(io::stderr(), "SKIPPED: network namespaces need root");
    false
}

/// A lab, where one may be built.
pub fn lab(wiring: Wiring) -> Option<Lab> {
    may_build_labs().then(|| Lab::new(wiring).expect("a lab"))
}
