//! What the file asks for that this build only validates, in short phrases.

use std::sync::Arc;

use crate::item::Item;

/// One phrase each, in the order of the file: `cache pages`, `frontend web: 2 rules`.
pub(super) fn pending(items: &[Item]) -> Vec<String> {
    let mut phrases = Vec::new();
    let signs = items.iter().any(|item| item.find("shield").is_some());
    for item in items {
        let title = format!("{} {}", item.row.name, item.name());
        if !item.row.acts() {
            phrases.push(title);
            continue;
        }
        let mut parts: Vec<(String, usize)> = Vec::new();
        section(item, signs, &mut parts);
        phrases.extend(parts.into_iter().map(|(part, times)| {
            if times == 1 { format!("{title}: {part}") } else { format!("{title}: {times} {part}s") }
        }));
    }
    phrases
}

/// `signs`: something signs with the cluster's key, which then is in use.
fn section(item: &Item, signs: bool, parts: &mut Vec<(String, usize)>) {
    for child in &item.children {
        if child.row.acts() {
            section(child, signs, parts);
            continue;
        }
        if signs && child.row.name == "secret" && &*child.name() == super::shield::KEY {
            continue;
        }
        let part = match child.row.name {
            "secret" => child.row.name.to_owned(),
            "cache" => format!("cache {}", child.get::<Arc<str>>("cache").unwrap_or_default()),
            _ => child.row.title(),
        };
        match parts.iter_mut().find(|(other, _)| *other == part) {
            Some((_, times)) => *times += 1,
            None => parts.push((part, 1)),
        }
    }
}
