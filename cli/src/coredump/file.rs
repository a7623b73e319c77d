//! The file that a core dump goes to: it has its name when it is complete, and no room is taken by zeros.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use super::{CoreError, PAGE};

/// What a core dump is to be called.
#[derive(Debug)]
pub enum Destination {
    /// This. It must not be there yet.
    File(PathBuf),
    /// core.PID.N in this folder, N the first that is free.
    Folder(PathBuf),
}

/// More of one process are not kept in a folder.
const NUMBERS: u32 = 10_000;

/// A file that is being written.
pub struct Output<'a> {
    destination: &'a Destination,
    process: i32,
    file: NamedTempFile,
    sparse: Sparse,
}

impl<'a> Output<'a> {
    /// Creates it, for its owner alone.
    pub fn create(destination: &'a Destination, process: i32) -> Result<Self, CoreError> {
        let folder = match destination {
            Destination::File(path) => path.parent().filter(|folder| !folder.as_os_str().is_empty()),
            Destination::Folder(folder) => Some(folder.as_path()),
        };
        let folder = folder.unwrap_or(Path::new("."));
        let failed = |error| CoreError::Write {
            path: folder.to_owned(),
            error,
        };
        if let Destination::Folder(folder) = destination {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(failed)?;
        }
        // tempfile makes it with mode 0600.
        let file = Builder::new()
            .prefix(&format!(".core.{process}."))
            .tempfile_in(folder)
            .map_err(failed)?;
        let sparse = Sparse {
            file: file.as_file().try_clone().map_err(failed)?,
            position: 0,
        };
        Ok(Output {
            destination,
            process,
            file,
            sparse,
        })
    }

    /// What the dump is written to.
    pub fn writer(&mut self) -> &mut impl Write {
        &mut self.sparse
    }

    /// The error of writing it.
    pub fn failed(&self, error: io::Error) -> CoreError {
        let path = match self.destination {
            Destination::File(path) | Destination::Folder(path) => path.clone(),
        };
        CoreError::Write { path, error }
    }

    /// Gives it its name. Says which, and how long the file is.
    pub fn finish(self) -> Result<(PathBuf, u64), CoreError> {
        let length = self.sparse.position;
        if let Err(error) = self.sparse.file.set_len(length) {
            return Err(self.failed(error));
        }
        let mut file = self.file;
        for number in 1.. {
            let name = match self.destination {
                Destination::File(path) => path.clone(),
                Destination::Folder(folder) => folder.join(format!("core.{}.{number}", self.process)),
            };
            match file.persist_noclobber(&name) {
                Ok(_) => return Ok((name, length)),
                Err(error) => {
                    let again = matches!(self.destination, Destination::Folder(_)) && number < NUMBERS;
                    if error.error.kind() != io::ErrorKind::AlreadyExists || !again {
                        return Err(CoreError::Write {
                            path: name,
                            error: error.error,
                        });
                    }
                    file = error.file;
                }
            }
        }
        unreachable!("the numbers end")
    }
}

/// A file in which zeros are not written.
struct Sparse {
    file: File,
    position: u64,
}

impl Write for Sparse {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.chunks(PAGE) {
            if part.iter().any(|byte| *byte != 0) {
                self.file.write_all_at(part, self.position)?;
            }
            self.position += part.len() as u64;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn files_are_numbered_and_their_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let destination = Destination::Folder(folder.path().join("a/b"));
        for number in 1..4 {
            let mut output = Output::create(&destination, 77).unwrap();
            output.writer().write_all(b"some").unwrap();
            output.writer().write_all(&vec![0; 1 << 20]).unwrap();
            let (path, length) = output.finish().unwrap();
            assert_eq!(path, folder.path().join(format!("a/b/core.77.{number}")));
            let facts = path.metadata().unwrap();
            assert_eq!((facts.len(), length), (4 + (1 << 20), 4 + (1 << 20)));
            assert_eq!(facts.mode() & 0o777, 0o600);
            assert!(facts.blocks() < 64, "{} blocks", facts.blocks());
        }
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_left_of_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("there");
        std::fs::write(&path, b"old").unwrap();
        let destination = Destination::File(path.clone());
        let output = Output::create(&destination, 77).unwrap();
        assert!(
            matches!(output.finish(), Err(CoreError::Write { error, .. }) if error.kind() == io::ErrorKind::AlreadyExists)
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
