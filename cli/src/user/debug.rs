//! Files with the debug information of others, as gdb finds them: by build ID, then by the name in `.gnu_debuglink`.

use std::path::{Path, PathBuf};

use object::Object as _;

/// Where systems keep them.
pub const ROOT: &str = "/usr/lib/debug";

/// A file with debug information for another.
#[derive(Debug)]
pub struct DebugFile {
    pub path: PathBuf,
    pub data: Vec<u8>,
}

/// The build ID in hexadecimal.
pub fn build_id(file: &object::File<'_>) -> Option<String> {
    let id = file.build_id().ok()??;
    Some(id.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The one for `file`, which is at `path`. What does not belong to it is not taken.
pub fn find(file: &object::File<'_>, path: &Path, roots: &[PathBuf]) -> Option<DebugFile> {
    by_build_id(file, roots).or_else(|| by_link(file, path, roots))
}

fn by_build_id(file: &object::File<'_>, roots: &[PathBuf]) -> Option<DebugFile> {
    let id = build_id(file)?;
    let (folder, rest) = id.split_at_checked(2)?;
    roots.iter().find_map(|root| {
        let path = root.join(".build-id").join(folder).join(format!("{rest}.debug"));
        let data = std::fs::read(&path).ok()?;
        let same = build_id(&object::File::parse(&*data).ok()?).as_deref() == Some(&*id);
        same.then_some(DebugFile { path, data })
    })
}

fn by_link(file: &object::File<'_>, path: &Path, roots: &[PathBuf]) -> Option<DebugFile> {
    let (name, checksum) = file.gnu_debuglink().ok()??;
    let name = Path::new(std::str::from_utf8(name).ok()?);
    let folder = path.canonicalize().ok()?.parent()?.to_owned();
    let beside = [folder.join(name), folder.join(".debug").join(name)];
    let below = roots
        .iter()
        .filter_map(|root| Some(root.join(folder.strip_prefix("/").ok()?).join(name)));
    beside.into_iter().chain(below).find_map(|path| {
        let data = std::fs::read(&path).ok()?;
        (crc32fast::hash(&data) == checksum).then_some(DebugFile { path, data })
    })
}
