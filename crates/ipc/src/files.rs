//! Files that only root may read, on their way to a child: the supervisor reads certificates and keys, looks at
//! no byte of them, and hands them over in one memory file.
//!
//! The form: for each file its path and its contents, each behind its length as 8 bytes, big-endian; a length with the
//! highest bit set belongs to a sentence that says why there are no contents.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};

/// Most bytes of all files together.
pub const MAX_BYTES: u64 = 256 * 1024 * 1024;

const FAILED: u64 = 1 << 63;

/// Contents by path, or why there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<String, Result<Vec<u8>, String>>);

impl Files {
    /// Adds a file.
    pub fn insert(&mut self, path: &str, contents: Result<Vec<u8>, String>) {
        self.0.insert(path.to_owned(), contents);
    }

    /// The contents of a file.
    ///
    /// # Errors
    /// A sentence with the path that says why there are none.
    pub fn get(&self, path: &str) -> Result<&[u8], String> {
        match self.0.get(path) {
            Some(Ok(contents)) => Ok(contents),
            Some(Err(why)) => Err(format!("{path} cannot be read: {why}")),
            None => Err(format!("{path} was not read")),
        }
    }

    /// Takes the contents of a file from another set; whether it has them.
    pub fn take_from(&mut self, other: &Files, path: &str) -> bool {
        let Some(Ok(contents)) = other.0.get(path) else { return false };
        self.insert(path, Ok(contents.clone()));
        true
    }

    /// Leaves a file out.
    pub fn remove(&mut self, path: &str) {
        self.0.remove(path);
    }

    /// The paths directly below a directory, in their order.
    pub fn below<'a>(&'a self, directory: &str) -> impl Iterator<Item = &'a str> {
        let directory = format!("{}/", directory.trim_end_matches('/'));
        self.0.keys().map(String::as_str).filter(move |path| {
            path.strip_prefix(&*directory).is_some_and(|name| !name.is_empty() && !name.contains('/'))
        })
    }

    /// Whether a file of this path is there at all.
    pub fn has(&self, path: &str) -> bool {
        matches!(self.0.get(path), Some(Ok(_)))
    }

    /// A memory file with all of them.
    ///
    /// # Errors
    /// If the kernel has no memory or descriptors left.
    pub fn to_fd(&self) -> io::Result<OwnedFd> {
        let file = std::fs::File::from(memfd_create("relais-files", MemfdFlags::CLOEXEC)?);
        let mut out = io::BufWriter::new(&file);
        for (path, contents) in &self.0 {
            let (bytes, mark) = match contents {
                Ok(bytes) => (bytes.as_slice(), 0),
                Err(why) => (why.as_bytes(), FAILED),
            };
            out.write_all(&(path.len() as u64).to_be_bytes())?;
            out.write_all(path.as_bytes())?;
            out.write_all(&(bytes.len() as u64 | mark).to_be_bytes())?;
            out.write_all(bytes)?;
        }
        out.flush()?;
        drop(out);
        Ok(file.into())
    }

    /// What [`Files::to_fd`] wrote.
    ///
    /// # Errors
    /// If it cannot be read or is something else.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Files> {
        let mut file = std::fs::File::from(fd);
        file.rewind()?;
        let mut bytes = Vec::new();
        (&file).take(MAX_BYTES * 2).read_to_end(&mut bytes)?;
        let mut rest = bytes.as_slice();
        let mut files = Files::default();
        while !rest.is_empty() {
            let (path, _) = piece(&mut rest)?;
            let path = String::from_utf8(path.to_vec()).map_err(io::Error::other)?;
            let (contents, failed) = piece(&mut rest)?;
            let contents = if failed {
                Err(String::from_utf8_lossy(contents).into_owned())
            } else {
                Ok(contents.to_vec())
            };
            files.0.insert(path, contents);
        }
        Ok(files)
    }
}

fn piece<'a>(rest: &mut &'a [u8]) -> io::Result<(&'a [u8], bool)> {
    let (length, behind) = rest.split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
    let length = u64::from_be_bytes(*length);
    let wanted = usize::try_from(length & !FAILED).map_err(io::Error::other)?;
    let (piece, behind) = behind.split_at_checked(wanted).ok_or(io::ErrorKind::UnexpectedEof)?;
    *rest = behind;
    Ok((piece, length & FAILED != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_arrive_as_they_were_sent() {
        let mut files = Files::default();
        files.insert("/a/one.pem", Ok(b"one\0\xff".to_vec()));
        files.insert("/a/two.pem", Ok(Vec::new()));
        files.insert("/a/b/three.pem", Err("permission denied".into()));
        let arrived = Files::from_fd(files.to_fd().unwrap()).unwrap();
        assert_eq!(arrived, files);
        assert_eq!(arrived.get("/a/one.pem"), Ok(&b"one\0\xff"[..]));
        assert_eq!(arrived.below("/a/").collect::<Vec<_>>(), ["/a/one.pem", "/a/two.pem"]);
        let why = "/a/b/three.pem cannot be read: permission denied";
        assert_eq!(arrived.get("/a/b/three.pem"), Err(why.into()));
        assert!(!arrived.has("/a/b/three.pem") && !arrived.has("/a") && arrived.has("/a/two.pem"));
    }

    #[test]
    fn what_was_cut_off_is_an_error() {
        let mut files = Files::default();
        files.insert("/a", Ok(b"contents".to_vec()));
        let file = std::fs::File::from(files.to_fd().unwrap());
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        assert!(Files::from_fd(file.into()).is_err());
    }
}
