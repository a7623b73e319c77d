//! Where the command takes symbols from.

use std::path::Path;

use crate::error::Error;
use crate::kallsyms::Kallsyms;

/// The running kernel's list.
const RUNNING: &str = "/proc/kallsyms";

/// The symbols of the running kernel, or of another list.
pub fn load(list: Option<&Path>) -> Result<Kallsyms, Error> {
    let path = list.unwrap_or(Path::new(RUNNING));
    let text = std::fs::read(path).map_err(|error| Error::Read {
        path: path.to_owned(),
        error,
    })?;
    let text = String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    Kallsyms::parse(text).map_err(|error| Error::List {
        path: path.to_owned(),
        error,
    })
}
