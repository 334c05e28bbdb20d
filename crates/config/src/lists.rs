//! Files that rules read: lists of values and maps from values to backends, one a line.
//!
//! `check` reads those that are on its machine; the data plane reads them where it runs, and again when they
//! change. A line is a value (a map's: a value and a name, with blanks between); `#` begins a comment; empty
//! lines are nothing.

use std::io::Read;
use std::path::Path;

use relais_rules::{Pattern, What};

use crate::table::Type;
use crate::value::{Raw, Value};

/// Longest file, bytes.
pub const LONGEST: u64 = 16 << 20;
/// Most entries of one file.
pub const MOST: usize = 100_000;

/// The values of a list.
///
/// # Errors
/// A sentence with `FILE:LINE` where a line is at fault.
pub fn list(file: &Path, what: &What) -> Result<Vec<Pattern>, String> {
    let mut patterns = Vec::new();
    lines(file, |line| {
        patterns.extend(values(what, line)?);
        Ok(())
    })?;
    Ok(patterns)
}

/// The entries of a map, in order: a value and the name of a backend.
///
/// # Errors
/// As [`list`]; also if `backend` does not know a name.
pub fn map<B>(
    file: &Path,
    what: &What,
    backend: impl Fn(&str) -> Option<B>,
) -> Result<Vec<(Vec<Pattern>, B)>, String> {
    let mut entries = Vec::new();
    lines(file, |line| {
        let (value, name) =
            line.split_once([' ', '\t']).ok_or("a line is a value and the name of a backend")?;
        let name = name.trim();
        let to = backend(name).ok_or_else(|| format!("there is no backend named `{name}`"))?;
        entries.push((values(what, value)?, to));
        Ok(())
    })?;
    Ok(entries)
}

fn lines(file: &Path, mut each: impl FnMut(&str) -> Result<(), String>) -> Result<(), String> {
    let name = file.display();
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|open| open.take(LONGEST + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("{name} cannot be read: {error}"))?;
    if bytes.len() as u64 > LONGEST {
        return Err(format!("{name} is longer than {LONGEST} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{name} is not UTF-8"))?;
    let mut count = 0;
    for (number, line) in text.lines().enumerate() {
        let line = comment(line).trim();
        if line.is_empty() {
            continue;
        }
        count += 1;
        if count > MOST {
            return Err(format!("{name}:{} is entry {count}: at most {MOST} are read", number + 1));
        }
        each(line).map_err(|why| format!("{name}:{}: {why}", number + 1))?;
    }
    Ok(())
}

/// A line without its comment, which begins the line or follows a blank.
fn comment(line: &str) -> &str {
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if c == '#' && before.is_whitespace() {
            return &line[..at];
        }
        before = c;
    }
    line
}

/// A line's value as patterns: one, but for networks.
fn values(what: &What, text: &str) -> Result<Vec<Pattern>, String> {
    let kind = match what {
        What::Path => Type::PathPattern,
        What::Host | What::Sni => Type::HostPattern,
        What::Src => Type::Networks,
        _ => Type::Text,
    };
    let value = kind
        .parse(&Raw::Text(text.to_owned()))
        .map_err(|misfit| format!("`{text}` is not {}: {}", misfit.expected, misfit.help))?;
    Ok(match value {
        Value::Networks(networks) => {
            networks.iter().map(|net| Pattern::Net(net.address, net.prefix)).collect()
        }
        _ => {
            let lower = matches!(what, What::Host | What::Sni);
            let pattern = Pattern::Glob(if lower { text.to_ascii_lowercase() } else { text.to_owned() });
            pattern.check()?;
            vec![pattern]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("relais-lists-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_list_is_values_and_comments_and_a_mistake_has_its_line() {
        let good = file("good", "# blocked\n10.0.0.0/8  # all of it\n\n192.168.1.1\n");
        assert_eq!(list(&good, &What::Src).unwrap().len(), 2);
        let bad = file("bad", "/a/**\nmanager/**\n");
        let why = list(&bad, &What::Path).unwrap_err();
        assert!(why.starts_with(&format!("{}:2: `manager/**` is not", bad.display())), "{why}");
        for path in [good, bad] {
            std::fs::remove_file(path).unwrap();
        }
        assert!(list(Path::new("/nowhere/x"), &What::Src).unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn a_map_leads_to_backends_that_are_there() {
        let path = file("map", "www.example  app\n*.example\tother # rest\n");
        let known = |name: &str| ["app", "other"].iter().position(|known| *known == name);
        let entries = map(&path, &What::Host, known).unwrap();
        assert_eq!(entries.iter().map(|(_, to)| *to).collect::<Vec<_>>(), [0, 1]);
        let why = map(&path, &What::Host, |_| None::<usize>).unwrap_err();
        assert!(why.ends_with(":1: there is no backend named `app`"), "{why}");
        std::fs::remove_file(path).unwrap();
    }
}
