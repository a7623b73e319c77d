//! Programs that the guest's tests of user space probe, in every form that programs have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::initramfs::Initramfs;
use crate::progress::Progress;
use crate::workspace::Workspace;

/// Files of this machine, and where they go in the guest.
pub struct Victims(Vec<(PathBuf, String)>);

/// How each is compiled, beside what all are.
const FORMS: [(&str, &[&str]); 4] = [
    ("victim", &["-pie", "-fPIE"]),
    ("victim-fixed", &["-no-pie", "-fno-pie"]),
    ("victim-by-id", &["-pie", "-fPIE", "-Wl,--build-id=sha1"]),
    ("victim-by-link", &["-pie", "-fPIE", "-Wl,--build-id=none"]),
];

/// Reads core dumps, and is by others.
const READER: &str = "/usr/bin/eu-readelf";

/// Builds them.
pub fn build(workspace: &Workspace, progress: &Progress) -> Result<Victims> {
    let source = workspace.root.join("linux/victims");
    let folder = workspace.target.join("victims");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut files = Vec::new();
    for (name, options) in FORMS {
        let program = folder.join(name);
        let mut gcc = Command::new("gcc");
        gcc.args(["-O1", "-g", "-Wall", "-pthread"]).args(options);
        progress.step(name, gcc.arg("-o").arg(&program).arg(source.join("victim.c")))?;
        let debug = folder.join(format!("{name}.debug"));
        let bin = format!("bin/{name}");
        match name {
            "victim-by-id" => {
                let id = build_id(&program)?;
                let (first, rest) = id.split_at(2);
                strip(progress, &program, &debug, None)?;
                files.push((debug, format!("usr/lib/debug/.build-id/{first}/{rest}.debug")));
            }
            "victim-by-link" => {
                strip(progress, &program, &debug, Some(&debug))?;
                files.push((debug, "bin/.debug/victim-by-link.debug".to_owned()));
            }
            _ => {}
        }
        files.push((program, bin));
    }
    let program = folder.join("victim32");
    let mut gcc = Command::new("gcc");
    gcc.args([
        "-m32",
        "-O1",
        "-ffreestanding",
        "-nostdlib",
        "-static",
        "-fno-stack-protector",
    ])
    .args(["-fno-pie", "-no-pie", "-Wall", "-o"]);
    progress.step("victim32", gcc.arg(&program).arg(source.join("victim32.c")))?;
    files.push((program, "bin/victim32".to_owned()));
    files.push((PathBuf::from(READER), "bin/eu-readelf".to_owned()));
    let mut libraries = libraries(&folder.join("victim"))?;
    libraries.extend(self::libraries(Path::new(READER))?);
    libraries.sort_unstable();
    libraries.dedup();
    for library in libraries {
        let place = library.trim_start_matches('/').to_owned();
        files.push((PathBuf::from(&library), place));
    }
    files.push((source.join("victim.c"), "victim.c".to_owned()));
    Ok(Victims(files))
}

impl Victims {
    /// Adds them to a guest's files, with the folders that they are in.
    pub fn add_to(&self, files: &mut Initramfs) -> Result<()> {
        let mut folders: Vec<&Path> = self
            .0
            .iter()
            .flat_map(|(_, place)| Path::new(place).ancestors().skip(1))
            .filter(|folder| !folder.as_os_str().is_empty() && *folder != Path::new("bin"))
            .collect();
        // Parents are shorter than what they hold.
        folders.sort_unstable();
        folders.dedup();
        for folder in folders {
            files.directory(&folder.to_string_lossy());
        }
        self.0.iter().try_for_each(|(from, place)| files.copy(from, place))
    }
}

/// Moves what only debuggers need to a file of its own; the program names it if there is a `link`.
fn strip(progress: &Progress, program: &Path, debug: &Path, link: Option<&Path>) -> Result<()> {
    let mut objcopy = Command::new("objcopy");
    progress.step("objcopy", objcopy.arg("--only-keep-debug").arg(program).arg(debug))?;
    progress.step("strip", Command::new("strip").arg("--strip-all").arg(program))?;
    if let Some(link) = link {
        let mut objcopy = Command::new("objcopy");
        objcopy
            .arg(format!("--add-gnu-debuglink={}", link.display()))
            .arg(program);
        progress.step("objcopy", &mut objcopy)?;
    }
    Ok(())
}

fn build_id(program: &Path) -> Result<String> {
    let notes = output(Command::new("readelf").arg("--notes").arg(program))?;
    let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: "));
    Ok(id.context("the victim has no build ID")?.trim().to_owned())
}

/// The libraries that a program is run with.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let list = output(Command::new("ldd").arg(program))?;
    let paths = list.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(str::to_owned).collect())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
