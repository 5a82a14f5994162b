//! Who may read the stream, beside root.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

/// Whose the socket is. Its owner may read it, and its group where one is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// User id; the process's own by default.
    pub owner: Option<u32>,
    /// Group id; without one the group has no access.
    pub group: Option<u32>,
}

impl Access {
    pub(super) fn apply(self, path: &Path) -> io::Result<()> {
        self.apply_by(path, |path, owner, group| chown(path, owner, group))
    }

    fn apply_by(
        self,
        path: &Path,
        give: impl FnOnce(&Path, Option<u32>, Option<u32>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut mode = 0o600;
        if self.owner.is_some() || self.group.is_some() {
            match give(path, self.owner, self.group) {
                Ok(()) if self.group.is_some() => mode = 0o660,
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => tracing::warn!(
                    "the socket stays the agent's own: to give it to another user or group takes CAP_CHOWN"
                ),
                Err(error) => return Err(error),
            }
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }
}

/// A user by name or number.
///
/// # Errors
/// Where `/etc/passwd` has no such name.
pub fn user(text: &str) -> Result<u32, String> {
    id(text, "/etc/passwd", "user")
}

/// A group by name or number.
///
/// # Errors
/// Where `/etc/group` has no such name.
pub fn group(text: &str) -> Result<u32, String> {
    id(text, "/etc/group", "group")
}

fn id(text: &str, file: &str, what: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let table = fs::read_to_string(file).map_err(|error| format!("cannot read {file}: {error}"))?;
    find(&table, text).ok_or_else(|| format!("{file} has no {what} of that name; give its number"))
}

/// The third field of the line whose first is `name`, as passwd(5) and group(5) have it.
fn find(table: &str, name: &str) -> Option<u32> {
    table
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name))?
        .get(2)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn names_are_looked_up_and_numbers_are_taken() {
        let table = "root:x:0:\n# a comment\nadm:x:4:syslog\nbroken:x\n";
        assert_eq!(find(table, "adm"), Some(4));
        assert_eq!(find(table, "ad"), None);
        assert_eq!(find(table, "broken"), None);
        assert_eq!(group("1234"), Ok(1234));
        assert!(
            group("no-such-group")
                .unwrap_err()
                .contains("/etc/group has no group")
        );
    }

    #[test]
    fn only_a_named_group_may_read_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        fs::write(&path, "").unwrap();
        let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
        Access::default().apply(&path).unwrap();
        assert_eq!(mode(), 0o600);
        // Its own group: no privilege is needed to give it that.
        let own = fs::metadata(&path).unwrap().gid();
        let access = Access {
            owner: None,
            group: Some(own),
        };
        access.apply(&path).unwrap();
        assert_eq!(mode(), 0o660);
        // Another's, without the privilege: nobody else reads it, and the agent runs all the same.
        let refused = |_: &Path, _, _| Err(io::ErrorKind::PermissionDenied.into());
        access.apply_by(&path, refused).unwrap();
        assert_eq!(mode(), 0o600);
        let gone = |_: &Path, _, _| Err(io::ErrorKind::NotFound.into());
        assert!(access.apply_by(&path, gone).is_err());
    }
}
