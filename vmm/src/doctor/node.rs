//! `DeviceNode`: the file `/dev/kvm`, and whom it lets in.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::facts::read;

/// The file `/dev/kvm`, as far as permissions go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeviceNode {
    /// The permission bits.
    pub(super) mode: u32,
    /// The group it belongs to: its name, or its number if it has none here.
    pub(super) group: String,
    /// Whether `/etc/group` lists this user there. The login may be older than the entry.
    pub(super) group_lists_user: bool,
}

impl DeviceNode {
    /// Looks at the file, if it is there.
    pub(super) fn look() -> Option<Self> {
        let metadata = fs::metadata("/dev/kvm").ok()?;
        // The directory belongs to whom the process acts for: its effective user.
        let user_id = fs::metadata("/proc/self").ok()?.uid();
        let user = name_of(user_id, &read("/etc/passwd")).unwrap_or_default();
        let groups = read("/etc/group");
        let group = name_of(metadata.gid(), &groups);
        Some(Self {
            mode: metadata.mode() & 0o777,
            group_lists_user: group.as_ref().is_some_and(|group| group_lists(group, &user, &groups)),
            group: group.unwrap_or_else(|| metadata.gid().to_string()),
        })
    }
}

/// The name that a line `name:password:id:…` of `/etc/passwd` or `/etc/group` gives `id`.
fn name_of(id: u32, table: &str) -> Option<String> {
    table
        .lines()
        .map(|line| line.split(':'))
        .find(|fields| fields.clone().nth(2) == Some(&id.to_string()))
        .and_then(|mut fields| fields.next())
        .map(str::to_owned)
}

/// Whether the line `group:password:id:user,user` lists `user`.
fn group_lists(group: &str, user: &str, groups: &str) -> bool {
    groups
        .lines()
        .map(|line| line.split(':'))
        .find(|fields| fields.clone().next() == Some(group))
        .and_then(|mut fields| fields.nth(3))
        .is_some_and(|users| users.split(',').any(|listed| listed == user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_their_users_are_found_in_etc_group() {
        let groups = "root:x:0:\nkvm:x:36:ann,bob\n";
        assert_eq!(name_of(36, groups).as_deref(), Some("kvm"));
        assert_eq!(name_of(3, groups), None);
        assert!(group_lists("kvm", "bob", groups));
        assert!(!group_lists("kvm", "bo", groups));
        assert!(!group_lists("root", "ann", groups));
    }
}
