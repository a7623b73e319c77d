//! Is the file that is probed still the one with its name?

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use dprobes::wire::ProbeStatus;

use crate::render::escape::trim;

/// What is at the path of a file that is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtPath {
    /// The same file.
    Same,
    /// Another: what is probed is what was there before, which only the processes run that have started before.
    Another,
    /// Nothing.
    Nothing,
    /// It cannot be said: the path is too long for a query to tell, or may not be looked at.
    Unknown,
}

impl AtPath {
    /// In a word, for programs.
    pub fn word(self) -> &'static str {
        match self {
            AtPath::Same => "same",
            AtPath::Another => "replaced",
            AtPath::Nothing => "removed",
            AtPath::Unknown => "unknown",
        }
    }
}

/// What is at the path of a probe's file now; `None` if it is not in user space.
pub fn at_path(probe: &ProbeStatus) -> Option<AtPath> {
    if probe.inode == 0 {
        return None;
    }
    let name = trim(&probe.module);
    if name.len() == probe.module.len() {
        return Some(AtPath::Unknown);
    }
    let found = match std::fs::metadata(Path::new(std::ffi::OsStr::from_bytes(name))) {
        Ok(found) if (found.dev(), found.ino()) == (probe.device, probe.inode) => AtPath::Same,
        Ok(_) => AtPath::Another,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => AtPath::Nothing,
        Err(_) => AtPath::Unknown,
    };
    Some(found)
}
