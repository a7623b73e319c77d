//! Building the Linux module: the engine as one relocatable object, then Kbuild.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use vmlinux::Kernel;

use crate::progress::Progress;
use crate::reach::Graph;
use crate::workspace::{BARE_METAL, Workspace};

/// What a kernel asks of the code it loads: indirect branches through its own thunks, returns through its return thunk, `endbr64`
/// where an indirect call may land, and no unwind tables, which the kernel's own unwinder does not read.
const CODE_GENERATION: &str = "-Zcf-protection=branch -Zretpoline-external-thunk -Zfunction-return=thunk-extern \
    -Cforce-unwind-tables=no";

/// The symbols that the C side of the module uses; all others become local, so that nothing of ours can clash with the kernel.
const EXPORTED: &str = "dprobes_";

/// Builds the module for a kernel and returns the file to load.
pub fn build(workspace: &Workspace, progress: &mut Progress, kernel: &Kernel) -> Result<PathBuf> {
    let linux = workspace.target.join("linux");
    let folder = linux.join(&kernel.release);
    stage(&workspace.root.join("linux"), &folder)?;
    let core = core_object(workspace, progress, &linux)?;
    // Kbuild makes core.o of it, with what objtool adds.
    replace_if_different(&folder.join("core.o_shipped"), &fs::read(core)?)?;
    let include = assignment("DPROBES_INCLUDE", &workspace.root.join("include"));
    kbuild(progress, kernel, &folder, &[include], "module")?;
    Ok(folder.join("dprobes.ko"))
}

/// Builds another module of one C file, in a folder of linux/, and returns the file to load.
pub fn build_other(
    workspace: &Workspace,
    progress: &mut Progress,
    kernel: &Kernel,
    folder: &str,
    name: &str,
) -> Result<PathBuf> {
    let staged = workspace.target.join("linux").join(folder).join(&kernel.release);
    stage(&workspace.root.join("linux").join(folder), &staged)?;
    kbuild(progress, kernel, &staged, &[], name)?;
    Ok(staged.join(name).with_extension("ko"))
}

/// Runs a kernel's own build system on a folder.
fn kbuild(progress: &mut Progress, kernel: &Kernel, folder: &Path, arguments: &[String], what: &str) -> Result<()> {
    if !kernel.build_folder().join("Makefile").exists() {
        bail!(
            "{} has no headers (Debian: apt-get install linux-headers-{})",
            kernel.release,
            kernel.release
        );
    }
    let mut make = Command::new("make");
    make.arg("-C")
        .arg(kernel.build_folder())
        .arg(assignment("M", folder))
        .args(arguments)
        .arg("modules");
    make.env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .env_remove("MAKELEVEL");
    progress.step(&format!("{what} for {}", kernel.release), &mut make)?;
    Ok(())
}

/// libdprobes.a, compiled as a kernel asks for, as one relocatable object.
fn core_object(workspace: &Workspace, progress: &mut Progress, linux: &Path) -> Result<PathBuf> {
    // Other flags make another core library: a folder of their own keeps them apart.
    let target = linux.join("core");
    let mut cargo = workspace.bare_metal_cargo("build");
    cargo
        .args(["--release", "--package", "dprobes-capi", "--target-dir"])
        .arg(&target);
    progress.step("engine for Linux", cargo.env("RUSTFLAGS", CODE_GENERATION))?;
    let library = target.join(BARE_METAL).join("release/libdprobes.a");
    let graph = Graph::of_archive(&fs::read(&library).with_context(|| format!("cannot read {}", library.display()))?)?;

    let object = target.join("core.o");
    let mut link = Command::new("ld");
    link.args(["--relocatable", "--gc-sections", "--strip-debug"])
        .arg("--script")
        .arg(workspace.root.join("linux/core.lds"))
        .arg("-o")
        .arg(&object);
    // The exported functions are what must stay; with them, what they refer to.
    for symbol in graph.symbols().filter(|symbol| symbol.starts_with(EXPORTED)) {
        link.arg(format!("--undefined={symbol}"));
    }
    progress.step("core.o", link.arg(&library))?;
    let mut hide = Command::new("objcopy");
    hide.args(["--wildcard", &format!("--keep-global-symbol={EXPORTED}*")])
        .arg(&object);
    progress.step("core.o, hiding symbols", &mut hide)?;
    Ok(object)
}

/// Copies the module's sources, so that the checkout stays as it is. What is the same is left alone: make goes by time.
fn stage(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        let source = path
            .extension()
            .is_some_and(|extension| ["c", "h", "S"].map(OsStr::new).contains(&extension));
        if source || path.file_name() == Some(OsStr::new("Kbuild")) {
            let name = path.file_name().expect("an entry of a folder has a name");
            replace_if_different(&to.join(name), &fs::read(&path)?)?;
        }
    }
    Ok(())
}

fn replace_if_different(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|now| now == content) {
        return Ok(());
    }
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

fn assignment(name: &str, value: &Path) -> String {
    format!("{name}={}", value.display())
}
