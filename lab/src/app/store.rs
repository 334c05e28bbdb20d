//! Where the embedded application keeps its enrolments: one file of JSON lines in a directory that all
//! instances share, as the thesis's Tomcats share their database.
//!
//! An enrolment is in the file and the file on the disk (`fdatasync`) before [`Store::add`] returns, so a
//! receipt that a client holds outlives any `SIGKILL`. A token that the client chose makes a repeated
//! request harmless: whichever instance gets it, the same receipt comes back. A writer holds the file's
//! lock; a line that its writer did not live to finish is cut off by the next one.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The most enrolments that a store takes.
pub(crate) const MAX_ENROLMENTS: u64 = 1_000_000;
/// How many of the last enrolments are kept at hand.
const RECENT: usize = 12;

/// What a student fills in. Every text is trimmed, neither empty nor longer than [`Enrolment::MAX_CHARS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Enrolment {
    pub(crate) family_name: String,
    pub(crate) first_name: String,
    pub(crate) establishment: String,
    pub(crate) wilaya: String,
    pub(crate) level: String,
    /// Chosen by the client, 8 to 64 letters, digits, `-` or `_`: one token, one enrolment.
    pub(crate) token: String,
}

impl Enrolment {
    /// Longest text of a field, characters.
    pub(crate) const MAX_CHARS: usize = 80;

    /// The same with every text trimmed, or which field is wrong and how.
    pub(crate) fn checked(mut self) -> Result<Enrolment, String> {
        let fields = [
            ("family_name", &mut self.family_name),
            ("first_name", &mut self.first_name),
            ("establishment", &mut self.establishment),
            ("wilaya", &mut self.wilaya),
            ("level", &mut self.level),
        ];
        for (name, text) in fields {
            *text = text.trim().to_owned();
            if text.is_empty() || text.chars().count() > Self::MAX_CHARS || text.chars().any(char::is_control)
            {
                return Err(format!("`{name}` must have 1 to {} printable characters", Self::MAX_CHARS));
            }
        }
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if !(8..=64).contains(&self.token.len()) || !self.token.bytes().all(word) {
            return Err("`token` must have 8 to 64 letters, digits, `-` or `_`".into());
        }
        Ok(self)
    }
}

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The receipt's number, from 1 without gaps.
    pub(crate) id: u64,
    /// Which instance stored it.
    pub(crate) instance: String,
    #[serde(flatten)]
    pub(crate) enrolment: Enrolment,
}

/// One instance's view of the file.
#[derive(Debug)]
pub(crate) struct Store {
    file: File,
    /// End of the last whole line that was read.
    end: u64,
    by_token: HashMap<String, u64>,
    repeated: u64,
    recent: VecDeque<Record>,
}

impl Store {
    /// Opens the store of this directory; both are made where they are missing.
    pub(crate) fn open(dir: &Path) -> io::Result<Store> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join("enrolments.jsonl");
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        File::open(dir)?.sync_all()?; // the file's name must be as durable as what will be in it
        Ok(Store { file, end: 0, by_token: HashMap::new(), repeated: 0, recent: VecDeque::new() })
    }

    /// Enrols, or finds the enrolment with this token; returns its receipt and whether it is new, and
    /// returns only once it is on the disk.
    pub(crate) fn add(&mut self, instance: &str, enrolment: Enrolment) -> io::Result<(u64, bool)> {
        self.file.lock()?;
        let result = self.add_locked(instance, enrolment);
        self.file.unlock()?;
        result
    }

    fn add_locked(&mut self, instance: &str, enrolment: Enrolment) -> io::Result<(u64, bool)> {
        self.refresh()?;
        if let Some(&id) = self.by_token.get(&enrolment.token) {
            self.file.sync_data()?; // its writer may have died between writing and this
            return Ok((id, false));
        }
        if self.count() >= MAX_ENROLMENTS {
            return Err(io::Error::other(format!("the store is full: it takes {MAX_ENROLMENTS} enrolments")));
        }
        self.file.set_len(self.end)?; // whatever follows the last whole line had no time to be acknowledged
        let id = self.count() + 1;
        let mut line = serde_json::to_vec(&Record { id, instance: instance.to_owned(), enrolment })?;
        line.push(b'\n');
        let stored = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(e) = stored {
            self.file.set_len(self.end)?; // not acknowledged, so it must not come back as if it were
            return Err(e);
        }
        self.refresh()?;
        Ok((id, true))
    }

    /// Reads what other instances wrote since the last look.
    pub(crate) fn refresh(&mut self) -> io::Result<()> {
        if self.file.metadata()?.len() < self.end {
            // another instance took a line back that could not be made durable
            (self.end, self.repeated) = (0, 0);
            self.by_token.clear();
            self.recent.clear();
        }
        self.file.seek(SeekFrom::Start(self.end))?;
        let mut fresh = Vec::new();
        self.file.read_to_end(&mut fresh)?;
        for line in fresh.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n")) {
            let record: Record = serde_json::from_slice(line)?;
            self.end += line.len() as u64;
            match self.by_token.entry(record.enrolment.token.clone()) {
                Entry::Vacant(vacant) => drop(vacant.insert(record.id)),
                Entry::Occupied(_) => self.repeated += 1,
            }
            self.recent.push_front(record);
            self.recent.truncate(RECENT);
        }
        Ok(())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.by_token.len() as u64
    }

    /// The last few, newest first.
    pub(crate) fn recent(&self) -> impl Iterator<Item = &Record> {
        self.recent.iter()
    }

    /// Lines whose token an earlier line has already: there must be none.
    pub(crate) fn repeated(&self) -> u64 {
        self.repeated
    }

    /// The receipt of the enrolment with this token.
    pub(crate) fn receipt(&self, token: &str) -> Option<u64> {
        self.by_token.get(token).copied()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A directory of the test's own, removed at its end.
    pub(crate) struct Scratch(pub(crate) PathBuf);

    impl Scratch {
        pub(crate) fn new(name: &str) -> Scratch {
            let dir = std::env::temp_dir().join(format!("relais-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir_all(&dir).unwrap();
            Scratch(dir)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    pub(crate) fn student(token: &str) -> Enrolment {
        Enrolment {
            family_name: "Benali".into(),
            first_name: "Amina".into(),
            establishment: "USTHB".into(),
            wilaya: "Alger".into(),
            level: "Master".into(),
            token: token.into(),
        }
    }

    #[test]
    fn a_repeated_token_gets_the_same_receipt_from_every_instance() {
        let dir = Scratch::new("same-receipt");
        let (mut one, mut two) = (Store::open(&dir.0).unwrap(), Store::open(&dir.0).unwrap());
        assert_eq!(one.add("one", student("token-a1")).unwrap(), (1, true));
        assert_eq!(two.add("two", student("token-b2")).unwrap(), (2, true));
        assert_eq!(two.add("two", student("token-a1")).unwrap(), (1, false));
        assert_eq!(one.add("one", student("token-b2")).unwrap(), (2, false));
        assert_eq!(one.count(), 2);
        assert_eq!(
            one.recent().map(|r| (r.id, r.instance.as_str())).collect::<Vec<_>>(),
            [(2, "two"), (1, "one")]
        );
    }

    #[test]
    fn a_line_whose_writer_died_is_cut_off_and_its_token_can_be_tried_again() {
        let dir = Scratch::new("torn-line");
        let mut store = Store::open(&dir.0).unwrap();
        store.add("one", student("token-a1")).unwrap();
        let mut torn = OpenOptions::new().append(true).open(dir.0.join("enrolments.jsonl")).unwrap();
        torn.write_all(br#"{"id":2,"instance":"one","family_name":"Ben"#).unwrap();
        store.refresh().unwrap();
        assert_eq!((store.count(), store.receipt("token-b2")), (1, None));
        assert_eq!(store.add("one", student("token-b2")).unwrap(), (2, true));
        let mut again = Store::open(&dir.0).unwrap();
        again.refresh().unwrap();
        assert_eq!((again.count(), again.receipt("token-b2")), (2, Some(2)));
    }

    #[test]
    fn a_token_that_is_in_the_file_twice_is_counted() {
        let dir = Scratch::new("twice");
        let mut store = Store::open(&dir.0).unwrap();
        store.add("one", student("token-a1")).unwrap();
        let line = std::fs::read(dir.0.join("enrolments.jsonl")).unwrap();
        assert_eq!(store.repeated(), 0);
        store.file.write_all(&line).unwrap();
        store.refresh().unwrap();
        assert_eq!((store.repeated(), store.count()), (1, 1));
    }

    #[test]
    fn a_line_that_was_taken_back_is_forgotten() {
        let dir = Scratch::new("taken-back");
        let (mut one, mut two) = (Store::open(&dir.0).unwrap(), Store::open(&dir.0).unwrap());
        one.add("one", student("token-a1")).unwrap();
        let end = one.end;
        one.add("one", student("token-b2")).unwrap();
        two.refresh().unwrap();
        one.file.set_len(end).unwrap();
        two.refresh().unwrap();
        assert_eq!((two.count(), two.receipt("token-b2")), (1, None));
    }

    #[test]
    fn what_is_empty_too_long_or_not_a_token_is_refused_by_name() {
        let wrong = |edit: fn(&mut Enrolment)| {
            let mut student = student("token-a1");
            edit(&mut student);
            student.checked().unwrap_err()
        };
        assert!(wrong(|s| s.family_name = "  ".into()).contains("`family_name`"));
        assert!(wrong(|s| s.first_name = "x".repeat(81)).contains("`first_name`"));
        assert!(wrong(|s| s.level = "a\nb".into()).contains("`level`"));
        assert!(wrong(|s| s.token = "short".into()).contains("`token`"));
        assert!(wrong(|s| s.token = "no spaces allowed".into()).contains("`token`"));
        let trimmed = Enrolment { wilaya: " Béjaïa ".into(), ..student("token-a1") }.checked().unwrap();
        assert_eq!(trimmed.wilaya, "Béjaïa");
    }
}
