//! What the process finds in its surroundings: node name, terminal.

use std::io::IsTerminal as _;

/// Columns of a line where no terminal says otherwise.
const DEFAULT_WIDTH: usize = 100;

/// The node's name: `$NODE_NAME` (set by the DaemonSet through the downward API), else the host name.
pub(super) fn node_name() -> String {
    std::env::var("NODE_NAME")
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| {
            rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned()
        })
}

/// Columns that fit a line of standard output.
pub(super) fn width() -> usize {
    let terminal = || {
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return None;
        }
        let size = rustix::termios::tcgetwinsize(stdout).ok()?;
        (size.ws_col > 0).then_some(usize::from(size.ws_col))
    };
    let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
    terminal().or_else(columns).unwrap_or(DEFAULT_WIDTH)
}
