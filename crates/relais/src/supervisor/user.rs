//! Whom the unprivileged children run as.

use std::fs;

/// A user and its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The user for the unprivileged children: `name`, or `nobody` where that does not exist. `None` where
/// the supervisor is not root, or is root only of a user namespace that has no other user.
pub(crate) fn unprivileged(name: &str) -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user =
        find(&passwd, name).or_else(|| find(&passwd, "nobody")).unwrap_or(User { uid: 65534, gid: 65534 });
    let mapped = |file: &str, id: u32| fs::read_to_string(file).is_ok_and(|map| is_mapped(&map, id));
    (mapped("/proc/self/uid_map", user.uid) && mapped("/proc/self/gid_map", user.gid)).then_some(user)
}

/// The entry of `name` in the text of `/etc/passwd` (`passwd(5)`).
fn find(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let mut numbers = fields.skip(1);
        Some(User { uid: numbers.next()?.parse().ok()?, gid: numbers.next()?.parse().ok()? })
    })
}

/// Whether `id` exists in a user namespace with this map (`user_namespaces(7)`).
fn is_mapped(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(inside)), Some(Ok(_)), Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        (inside..inside.saturating_add(count)).contains(&u64::from(id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nrelaisx:x:5:5::/:\nrelais:x:998:997::/:/bin/false\n";
        assert_eq!(find(passwd, "relais"), Some(User { uid: 998, gid: 997 }));
        assert_eq!(find(passwd, "rel"), None);
    }

    #[test]
    fn a_namespace_of_one_user_has_no_nobody() {
        assert!(is_mapped("         0          0 4294967295\n", 65534));
        assert!(!is_mapped("         0       1000          1\n", 65534));
        assert!(is_mapped("0 1000 1\n1 100000 65536\n", 65534));
    }
}
