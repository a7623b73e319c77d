//! Debian's other kernels: not installed on this machine, but downloaded from the mirror that its apt uses, checked by apt, and unpacked in a folder of
//! the build's.
//!
//! apt is given a root of its own, with this machine's mirror and settings, and sources of other suites. Where a kernel was built by a compiler that this
//! machine has not got, that comes along with all that it needs, and modules are built with it as the root of the file system.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use vmlinux::Kernel;

use crate::progress::Progress;
use crate::workspace::Workspace;

/// Whose signatures count: the distribution's.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A line of kernels that tests run on, beside the one that is installed.
struct Series {
    /// How its releases begin, up to a full stop.
    name: &'static str,
    suite: Suite,
}

enum Suite {
    /// This machine's own, and its backports, which are built by its own compiler.
    Backports,
    /// Another one, which brings its compiler.
    Foreign(&'static str),
}

const SERIES: [Series; 2] = [
    Series {
        name: "6.12",
        suite: Suite::Backports,
    },
    Series {
        name: "7",
        suite: Suite::Foreign("sid"),
    },
];

/// What a compiler and Kbuild need to be a root of a file system, beside what the headers depend on.
const TOOLS: [&str; 11] = [
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "make",
    "mawk",
    "sed",
];

/// The kernels that are asked for: the installed one (the default), one by its number, or all.
pub fn wanted(workspace: &Workspace, progress: &Progress, wanted: Option<&str>) -> Result<Vec<Kernel>> {
    let installed = Kernel::newest()?;
    let Some(wanted) = wanted else {
        return Ok(vec![installed]);
    };
    let is = |name: &str| wanted == "all" || name == wanted || name.starts_with(&format!("{wanted}."));
    let mut kernels = Vec::new();
    if is(&installed.release) {
        kernels.push(installed.clone());
    }
    for series in SERIES.iter().filter(|series| is(series.name)) {
        kernels.push(fetched(workspace, progress, series)?);
    }
    if kernels.is_empty() {
        let names = SERIES.map(|series| series.name).join(", ");
        bail!(
            "there is no kernel {wanted}: the one installed here is {}, and others are {names}, all",
            installed.release
        );
    }
    Ok(kernels)
}

/// A kernel that is in the folder, or is put there.
fn fetched(workspace: &Workspace, progress: &Progress, series: &Series) -> Result<Kernel> {
    let folder = workspace.target.join("kernels").join(series.name);
    let done = folder.join("release");
    if let Ok(release) = fs::read_to_string(&done) {
        return kernel(series, &folder, &release);
    }
    // What an attempt has left that was interrupted.
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let apt = Apt::new(&folder, series)?;
    let suites = apt.suites.join(", ");
    progress.step(&format!("apt's lists of {suites}"), apt.get().arg("update"))?;
    let release = apt.release(series.name)?;
    apt.download(progress, series, &release)?;
    unpack(progress, &folder, series, &release)?;
    let kernel = kernel(series, &folder, &release)?;
    fs::write(&done, &release).with_context(|| format!("cannot write {}", done.display()))?;
    Ok(kernel)
}

fn kernel(series: &Series, folder: &Path, release: &str) -> Result<Kernel> {
    let root = folder.join("root");
    let images = [
        format!("boot/vmlinuz-{release}"),
        format!("usr/lib/modules/{release}/vmlinuz"),
    ];
    let image = images.iter().map(|image| root.join(image)).find(|image| image.exists());
    let headers = Path::new("/usr/src").join(format!("linux-headers-{release}"));
    let (headers, tools) = match series.suite {
        Suite::Backports => (inside(&root, &headers), None),
        Suite::Foreign(_) => (headers, Some(root)),
    };
    Ok(Kernel {
        release: release.to_owned(),
        image: image.with_context(|| format!("there is no image of {release} in {}", folder.display()))?,
        headers,
        tools,
    })
}

fn inside(root: &Path, absolute: &Path) -> PathBuf {
    root.join(absolute.strip_prefix("/").unwrap_or(absolute))
}

/// apt with a root of its own.
struct Apt {
    folder: PathBuf,
    configuration: PathBuf,
    suites: Vec<String>,
}

impl Apt {
    fn new(folder: &Path, series: &Series) -> Result<Self> {
        let own = own_suite()?;
        let suites = match series.suite {
            Suite::Backports => vec![format!("{own}-backports"), own.clone()],
            Suite::Foreign(suite) => vec![suite.to_owned()],
        };
        for name in [
            "apt/state/lists/partial",
            "apt/cache/archives/partial",
            "packages",
            "root",
        ] {
            let name = folder.join(name);
            fs::create_dir_all(&name).with_context(|| format!("cannot create {}", name.display()))?;
        }
        let apt = folder.join("apt");
        let (sources, configuration) = (apt.join("kernels.sources"), apt.join("apt.conf"));
        let text = format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\nSigned-By: {KEYRING}\n",
            mirror(&own)?,
            suites.join(" ")
        );
        write(&sources, &text)?;
        // Nothing is installed there, so that what is asked for comes with all that it needs.
        write(&apt.join("status"), "")?;
        let mut text = String::new();
        for (option, value) in [
            ("Dir::State", apt.join("state")),
            ("Dir::State::status", apt.join("status")),
            ("Dir::Cache", apt.join("cache")),
            ("Dir::Etc::sourcelist", sources),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("Dir::Etc::parts", "/dev/null".into()),
            ("APT::Sandbox::User", "root".into()),
        ] {
            writeln!(text, "{option} \"{}\";", value.display())?;
        }
        // How this machine reaches its mirror, and what it thinks of the date of that.
        let own_settings = output(Command::new("apt-config").args(["dump", "Acquire"]))?;
        for line in own_settings.lines().filter(|line| !line.contains("::IndexTargets")) {
            writeln!(text, "{line}")?;
        }
        writeln!(text, "Acquire::Languages \"none\";")?;
        write(&configuration, &text)?;
        Ok(Self {
            folder: folder.into(),
            configuration,
            suites,
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", &self.configuration)
            .current_dir(self.folder.join("packages"));
        command
    }

    fn get(&self) -> Command {
        self.command("apt-get")
    }

    /// The release of this series that the suites have.
    fn release(&self, series: &str) -> Result<String> {
        let shown = output(self.command("apt-cache").args(["show", "linux-image-amd64"]))?;
        let release = shown
            .lines()
            .filter_map(|line| line.strip_prefix("Depends: "))
            .flat_map(|depends| depends.split([' ', ',']))
            .filter_map(|word| word.strip_prefix("linux-image-"))
            .find(|release| release.strip_prefix(series).is_some_and(|rest| rest.starts_with('.')));
        let suites = self.suites.join(", ");
        Ok(release
            .with_context(|| format!("{suites}: there is no linux-image-amd64 {series}"))?
            .to_owned())
    }

    /// Everything comes by apt, which compares it with what is signed.
    fn download(&self, progress: &Progress, series: &Series, release: &str) -> Result<()> {
        let build = release.strip_suffix("-amd64").unwrap_or(release);
        let headers = format!("linux-headers-{release}");
        // Later kernels have their image in a package without the modules.
        let binary = format!("linux-binary-{release}");
        let has_binary = output(self.command("apt-cache").args(["show", &binary])).is_ok();
        let image = if has_binary {
            binary
        } else {
            format!("linux-image-{release}")
        };
        let mut get = self.get();
        get.args(["download", &image]);
        match series.suite {
            Suite::Backports => {
                get.args([
                    &headers,
                    &format!("linux-headers-{build}-common"),
                    &format!("linux-kbuild-{build}"),
                ]);
            }
            Suite::Foreign(_) => {
                let mut install = self.get();
                install.args([
                    "install",
                    "--download-only",
                    "--yes",
                    "--no-install-recommends",
                    &headers,
                ]);
                progress.step(&format!("the compiler of {release}"), install.args(TOOLS))?;
            }
        }
        progress.step(&format!("packages of {release}"), &mut get)?;
        Ok(())
    }
}

fn unpack(progress: &Progress, folder: &Path, series: &Series, release: &str) -> Result<()> {
    let root = folder.join("root");
    let mut packages = packages_in(&folder.join("packages"))?;
    packages.extend(packages_in(&folder.join("apt/cache/archives"))?);
    // The one with the root's symbolic links first.
    packages.sort_by_key(|package| !name_of(package).starts_with("base-files_"));
    for package in packages {
        let name = name_of(&package);
        let mut unpack = if name.starts_with("linux-image-") || name.starts_with("linux-binary-") {
            // The modules, which are most of it, are not needed.
            let mut tar = Command::new("sh");
            tar.args([
                "-c",
                "dpkg-deb --fsys-tarfile \"$1\" | tar -x -C \"$2\" --wildcards '*/vmlinuz*'",
                "sh",
            ]);
            tar
        } else {
            let mut dpkg = Command::new("dpkg-deb");
            dpkg.arg("--extract");
            dpkg
        };
        let output = unpack
            .arg(&package)
            .arg(&root)
            .output()
            .context("cannot unpack a package")?;
        if !output.status.success() {
            bail!("{}: {}", package.display(), String::from_utf8_lossy(&output.stderr));
        }
        fs::remove_file(&package).with_context(|| format!("cannot remove {}", package.display()))?;
    }
    match series.suite {
        Suite::Backports => {
            // The headers of one flavour say where those of all flavours are.
            let makefile = inside(&root, Path::new("/usr/src")).join(format!("linux-headers-{release}/Makefile"));
            let text = fs::read_to_string(&makefile).with_context(|| format!("cannot read {}", makefile.display()))?;
            write(
                &makefile,
                &text.replace("/usr/src/", &format!("{}/usr/src/", root.display())),
            )?;
        }
        // Installing would have made this link.
        Suite::Foreign(_) => symlink("mawk", root.join("usr/bin/awk")).context("cannot link awk")?,
    }
    progress.narrate(&format!("{release} is unpacked"), |_| Ok(((), true)))
}

fn packages_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect())
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The code name of this machine's release.
fn own_suite() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name
        .context("/etc/os-release names no release")?
        .trim_matches('"')
        .to_owned())
}

/// The mirror that this machine has that suite from.
fn mirror(suite: &str) -> Result<String> {
    let targets = output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
    ]))?;
    let uri = targets
        .lines()
        .find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [uri, release, "main"] if release == suite => Some(uri),
            _ => None,
        });
    Ok(uri
        .with_context(|| format!("apt knows no mirror of {suite} (apt-get update)"))?
        .to_owned())
}

/// What a kernel's own tools build with: its file system as the root, with these folders of this machine in it.
pub fn in_root(root: &Path, folders: &[&Path]) -> Command {
    const ENTER: &str = r#"set -eu
root=$1
count=$2
shift 2
while [ "$count" -gt 0 ]; do
    mkdir -p "$root$1"
    mount --rbind "$1" "$root$1"
    shift
    count=$((count - 1))
done
exec chroot "$root" "$@""#;
    let mut command = Command::new("unshare");
    // Mounts of its own, which end with it; and the right to make them, which root has already.
    command.arg("--mount");
    if !Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|id| id.stdout == b"0\n")
    {
        command.arg("--map-root-user");
    }
    command.args(["sh", "-c", ENTER, "sh"]).arg(root);
    // objtool of 7.2 asks /proc how much stack it has.
    let always = ["/dev", "/proc"];
    command.arg((folders.len() + always.len()).to_string());
    command.args(always).args(folders);
    command
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
