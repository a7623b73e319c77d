//! Building the Linux modules: a library of ours as one relocatable object, then Kbuild.

use std::ffi::OsStr;
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};
use vmlinux::Kernel;

use super::debian;
use crate::progress::Progress;
use crate::reach::Graph;
use crate::workspace::{BARE_METAL, Workspace};

/// What a kernel asks of the code it loads: indirect branches through its own thunks, returns through its return thunk, `endbr64`
/// where an indirect call may land, no unwind tables, which the kernel's own unwinder does not read, and a trap behind a call that does not
/// return: without one objtool takes the next function for what follows. (rustc's own setting leaves it out behind calls; without that
/// LLVM's does not.)
const CODE_GENERATION: &str = "-Zcf-protection=branch -Zretpoline-external-thunk -Zfunction-return=thunk-extern \
    -Cforce-unwind-tables=no -Ztrap-unreachable=no -Cllvm-args=-trap-unreachable";

/// A module with a library of ours inside.
struct Module {
    /// The module's name.
    name: &'static str,
    /// The folder of its C side.
    folder: &'static str,
    /// The package that makes lib`name`.a.
    package: &'static str,
    /// Its features for Linux.
    features: &'static str,
    /// How the symbols begin that its C side uses; all others become local, so that nothing of ours can clash with the kernel.
    exported: &'static str,
}

const DPROBES: Module = Module {
    name: "dprobes",
    folder: "linux",
    package: "dprobes-capi",
    features: "linux-thunks",
    exported: "dprobes_",
};

const GKHI: Module = Module {
    name: "gkhi",
    folder: "linux/gkhi",
    package: "gkhi-capi",
    features: "linux-thunks",
    exported: "gkhi_",
};

/// For tests: linux/conformance.
const CONFORMANCE: Module = Module {
    name: "dprobes_conformance",
    folder: "linux/conformance",
    package: "conformance-linux",
    features: "linux-thunks",
    exported: "conformance_",
};

/// Builds the module with the engine for a kernel and returns the file to load.
pub fn build(workspace: &Workspace, progress: &Progress, kernel: &Kernel) -> Result<PathBuf> {
    build_with_core(workspace, progress, kernel, &DPROBES)
}

/// Builds the module with the registry of hooks for a kernel and returns the file to load.
pub fn build_gkhi(workspace: &Workspace, progress: &Progress, kernel: &Kernel) -> Result<PathBuf> {
    build_with_core(workspace, progress, kernel, &GKHI)
}

/// Builds the module that runs the table of what each instruction does, and returns the file to load.
pub fn build_conformance(workspace: &Workspace, progress: &Progress, kernel: &Kernel) -> Result<PathBuf> {
    build_with_core(workspace, progress, kernel, &CONFORMANCE)
}

fn build_with_core(workspace: &Workspace, progress: &Progress, kernel: &Kernel, module: &Module) -> Result<PathBuf> {
    let folder = staged(workspace, module.name, kernel);
    stage(&workspace.root.join(module.folder), &folder)?;
    stage(&workspace.root.join("linux/shared"), &folder)?;
    let core = core_object(workspace, progress, module)?;
    // Kbuild makes core.o of it, with what objtool adds.
    replace_if_different(&folder.join("core.o_shipped"), &fs::read(core)?)?;
    kbuild(workspace, progress, kernel, &folder, &[include(workspace)], module.name)?;
    Ok(folder.join(module.name).with_extension("ko"))
}

/// Builds the modules of C files alone that are in a folder of linux/, and returns the folder where they are built. They may use
/// what the modules `after` export, which have been built before.
pub fn build_others(
    workspace: &Workspace,
    progress: &Progress,
    kernel: &Kernel,
    folder: &str,
    after: &[&Path],
) -> Result<PathBuf> {
    let to = staged(workspace, &folder.replace('/', "-"), kernel);
    stage(&workspace.root.join("linux").join(folder), &to)?;
    // What differs between kernels is said once, for all modules.
    let compat = workspace.root.join("linux/compat.h");
    let content = fs::read(&compat).with_context(|| format!("cannot read {}", compat.display()))?;
    replace_if_different(&to.join("compat.h"), &content)?;
    let exports: Vec<String> = after
        .iter()
        .filter_map(|module| Some(module.parent()?.join("Module.symvers").display().to_string()))
        .collect();
    let exports = format!("KBUILD_EXTRA_SYMBOLS={}", exports.join(" "));
    kbuild(workspace, progress, kernel, &to, &[include(workspace), exports], folder)?;
    Ok(to)
}

/// Where the sources of a module for a kernel are copied to and built.
fn staged(workspace: &Workspace, name: &str, kernel: &Kernel) -> PathBuf {
    workspace.target.join("linux").join(&kernel.release).join(name)
}

fn include(workspace: &Workspace) -> String {
    assignment("DPROBES_INCLUDE", &workspace.root.join("include"))
}

/// Runs a kernel's own build system on a folder. Warnings are errors: objtool's are about what an unwinder, or a CPU that tracks indirect branches,
/// would run into.
fn kbuild(
    workspace: &Workspace,
    progress: &Progress,
    kernel: &Kernel,
    folder: &Path,
    arguments: &[String],
    what: &str,
) -> Result<()> {
    if kernel.tools.is_none() && !kernel.headers.join("Makefile").exists() {
        bail!(
            "{} has no headers (Debian: apt-get install linux-headers-{})",
            kernel.release,
            kernel.release
        );
    }
    let mut make = match &kernel.tools {
        None => Command::new("make"),
        Some(root) => {
            let sources = ["include", "linux"].map(|folder| workspace.root.join(folder));
            let mut inside = debian::in_root(root, &[&workspace.target, &sources[0], &sources[1]]);
            inside.arg("make");
            inside
        }
    };
    let jobs = thread::available_parallelism().map_or(1, NonZero::get);
    make.arg(format!("-j{jobs}"))
        .arg("-C")
        .arg(&kernel.headers)
        .arg(assignment("M", folder))
        .args(arguments)
        // Nobody reads the types of a module of ours, and pahole need not be there.
        .arg("CONFIG_DEBUG_INFO_BTF_MODULES=")
        .arg("modules");
    make.env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .env_remove("MAKELEVEL");
    let output = progress.step(&format!("{what} for {}", kernel.release), &mut make)?;
    if let Some(warning) = output.text.lines().find(|line| is_warning(line)) {
        // Built again the next time, so that it is not forgotten.
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        bail!("{what} for {}: {warning}", kernel.release);
    }
    Ok(())
}

fn is_warning(line: &str) -> bool {
    let warns = line.contains("warning: ") || line.contains("WARNING: ");
    // The tests' own module panics, unlike the others: objtool does not know which of Rust's functions do not return.
    let panics = line.contains("objtool") && line.contains("panicking");
    // Of a compiler that is newer than the kernel's by a patch of the distribution's.
    warns && !panics && !line.contains("the compiler differs")
}

/// The library, compiled as a kernel asks for, as one relocatable object.
fn core_object(workspace: &Workspace, progress: &Progress, module: &Module) -> Result<PathBuf> {
    // Other flags make another core library: a folder of their own keeps them apart.
    let target = workspace.target.join("linux/core");
    let mut cargo = workspace.bare_metal_cargo("build");
    cargo
        .args([
            "--release",
            "--package",
            module.package,
            "--features",
            module.features,
            "--target-dir",
        ])
        .arg(&target);
    let library = format!("lib{}.a", module.name);
    progress.step(&format!("{library} for Linux"), cargo.env("RUSTFLAGS", CODE_GENERATION))?;
    let library = target.join(BARE_METAL).join("release").join(library);
    let graph = Graph::of_archive(&fs::read(&library).with_context(|| format!("cannot read {}", library.display()))?)?;

    let object = target.join(module.name).with_extension("o");
    let mut link = Command::new("ld");
    link.args(["--relocatable", "--gc-sections", "--strip-debug"])
        .arg("--script")
        .arg(workspace.root.join("linux/shared/core.lds"))
        .arg("-o")
        .arg(&object);
    // The exported functions are what must stay; with them, what they refer to.
    for symbol in graph.symbols().filter(|symbol| symbol.starts_with(module.exported)) {
        link.arg(format!("--undefined={symbol}"));
    }
    progress.step("core.o", link.arg(&library))?;
    let mut hide = Command::new("objcopy");
    hide.args(["--wildcard", &format!("--keep-global-symbol={}*", module.exported)])
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
            .is_some_and(|extension| ["c", "h", "S", "lds"].map(OsStr::new).contains(&extension));
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
