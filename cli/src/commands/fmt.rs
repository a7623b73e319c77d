//! `dprobes fmt`: program text in the customary layout.

use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;

use dprobes::rpn::object::layout::MAGIC;

use crate::args::Fmt;
use crate::error::Error;
use crate::output;
use crate::report::{Place, Report};

/// Formats each file in place, or says which are not formatted.
pub fn run(args: &Fmt) -> Result<(), Error> {
    let input = [Path::new("-").to_owned()];
    let files = if args.files.is_empty() { &input } else { &args.files[..] };
    let mut unformatted = Vec::new();
    for file in files {
        let text = read(file)?;
        let tidy = rpn_asm::format(&text);
        if args.check {
            unformatted.extend(difference(file, &text, &tidy));
        } else if args.stdout || is_input(file) {
            output::print(&tidy)?;
        } else if tidy != text {
            replace(file, tidy.as_bytes()).map_err(|error| Error::Write {
                path: file.clone(),
                error,
            })?;
        }
    }
    if unformatted.is_empty() {
        Ok(())
    } else {
        Err(Error::Unformatted(unformatted))
    }
}

fn is_input(file: &Path) -> bool {
    file == Path::new("-")
}

fn read(file: &Path) -> Result<String, Error> {
    let bytes = if is_input(file) {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    let path = file.to_owned();
    let bytes = match bytes {
        Ok(bytes) if bytes.starts_with(&MAGIC) => return Err(Error::ObjectForText { path }),
        Ok(bytes) => bytes,
        Err(error) => return Err(Error::Read { path, error }),
    };
    String::from_utf8(bytes).map_err(|error| Error::NotText {
        path,
        at: error.utf8_error().valid_up_to(),
    })
}

/// What is to be said of a file that is not formatted: its first line that would change.
fn difference(file: &Path, text: &str, tidy: &str) -> Option<Report> {
    if text == tidy {
        return None;
    }
    // What ends a line is part of it here.
    let ends = |text: &str| text.split_inclusive('\n').map(str::to_owned).collect::<Vec<_>>();
    let (old, new) = (ends(text), ends(tidy));
    let at = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let shown = old.get(at).map_or("", |line| line.trim_end_matches(['\n', '\r']));
    let name = if is_input(file) {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    };
    let place = Place {
        file: name.clone(),
        line: u32::try_from(at + 1).unwrap_or(u32::MAX),
        text: Some((shown.to_owned(), 0..shown.len())),
        label: match new.get(at).map(|line| line.trim_end()) {
            Some("") | None => "a line that should not be there, or white space at its end".to_owned(),
            Some(line) if line == shown => "the end of the line differs".to_owned(),
            Some(line) => format!("should be `{line}`"),
        },
    };
    let report = Report::new(format!("{name} is not formatted")).at(Some(place));
    Some(if is_input(file) {
        report
    } else {
        report.help(format!("format it with `dprobes fmt {name}`"))
    })
}

/// Puts new content in the place of a file's, completely or not at all, for the same owner and with the same permissions.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    // The file itself, not a link to it.
    let file = file.canonicalize()?;
    let old = file.metadata()?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(bytes)?;
    // Only root can give files away, and only root edits those of others.
    let _ = fchown(new.as_file(), Some(old.uid()), Some(old.gid()));
    new.as_file().set_permissions(old.permissions())?;
    new.as_file().sync_all()?;
    new.persist(&file)?;
    Ok(())
}
