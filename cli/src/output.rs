//! What the command prints.

use std::io::{self, Write};
use std::path::Path;

use crate::error::Error;

/// Writes to standard output, now: a reader at the other end of a pipe sees it at once.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Error::Output)
}

/// Tells something beside the output.
pub fn tell(text: &str) {
    // There is nobody to tell when this fails.
    let _ = writeln!(anstream::stderr().lock(), "{}", text.trim_end());
}

/// Writes bytes to a file, or to standard output when the path is `-`.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if path == Path::new("-") {
        let mut out = io::stdout().lock();
        return out.write_all(bytes).and_then(|()| out.flush()).map_err(Error::Output);
    }
    std::fs::write(path, bytes).map_err(|error| Error::Write {
        path: path.to_owned(),
        error,
    })
}
