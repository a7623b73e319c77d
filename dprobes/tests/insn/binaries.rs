//! The machine code that the sweeps read: large programs of this machine, and its kernel.

use object::{Object, ObjectSection, SectionFlags};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Executable sections of a file.
pub struct Binary {
    pub name: String,
    pub sections: Vec<Vec<u8>>,
}

/// Where Debian keeps shared libraries, the compiler's too if it is Debian's.
const SYSTEM: &str = "/usr/lib/x86_64-linux-gnu";

/// The executable sections of every binary the sweeps need. Panics, naming it, if one is missing.
pub fn all() -> Vec<Binary> {
    let compiler = sysroot().join("lib");
    vec![
        read(&largest(
            &[&compiler, Path::new(SYSTEM)],
            "librustc_driver-",
            "the Rust compiler",
        )),
        read(&largest(
            &[Path::new(SYSTEM)],
            "libcrypto.so",
            "apt-get install libssl3",
        )),
        read(Path::new("/usr/bin/qemu-system-x86_64")),
        kernel(),
    ]
}

fn kernel() -> Binary {
    let kernel = vmlinux::Kernel::newest().expect("a kernel in /boot (apt-get install linux-image-amd64)");
    let image = kernel.vmlinux().expect("the kernel's ELF image");
    sections(format!("Linux {}", kernel.release), &image)
}

fn sysroot() -> PathBuf {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .expect("rustc --print sysroot");
    PathBuf::from(String::from_utf8(output.stdout).expect("UTF-8").trim())
}

/// The largest file, in the first of the folders that has any, whose name starts so.
fn largest(folders: &[&Path], prefix: &str, install: &str) -> PathBuf {
    let largest_in = |folder: &&Path| {
        std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .map(|entry| entry.expect("a folder entry").path())
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
            })
            .max_by_key(|path| path.metadata().map_or(0, |metadata| metadata.len()))
    };
    let found = folders.iter().find_map(largest_in);
    found.unwrap_or_else(|| panic!("no {prefix}* in {folders:?}, which the sweep needs ({install})"))
}

fn read(path: &Path) -> Binary {
    let data = std::fs::read(path).unwrap_or_else(|error| panic!("{}, which the sweep needs: {error}", path.display()));
    sections(path.display().to_string(), &data)
}

fn sections(name: String, image: &[u8]) -> Binary {
    let file = object::File::parse(image).unwrap_or_else(|error| panic!("{name}: {error}"));
    let executable =
        |flags| matches!(flags, SectionFlags::Elf { sh_flags, .. } if sh_flags.0 & object::elf::SHF_EXECINSTR.0 != 0);
    let sections: Vec<_> = file
        .sections()
        .filter(|section| executable(section.flags()))
        .map(|section| section.uncompressed_data().expect("section data").into_owned())
        .filter(|data| !data.is_empty())
        .collect();
    assert!(!sections.is_empty(), "{name} has no machine code");
    Binary { name, sections }
}
