//! The guest's file system: a "newc" cpio archive, as the kernel's Documentation/driver-api/early-userspace/buffer-format.rst
//! describes it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const SYMLINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive that is being written. Parents must be added before what they hold.
#[derive(Default)]
pub struct Initramfs {
    bytes: Vec<u8>,
    inode: u32,
}

impl Initramfs {
    /// A file system with busybox in it: its applets, the usual folders, and a console for the kernel to open.
    pub fn with_busybox() -> Result<Self> {
        let mut archive = Self::default();
        for folder in ["bin", "dev", "etc", "proc", "sys", "tmp", "root", "examples"] {
            archive.directory(folder);
        }
        archive.entry("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
        let busybox = Path::new("/bin/busybox");
        archive.copy(busybox, "bin/busybox")?;
        let list = std::process::Command::new(busybox)
            .arg("--list")
            .output()
            .context("cannot run busybox")?;
        for applet in String::from_utf8_lossy(&list.stdout)
            .lines()
            .filter(|applet| *applet != "busybox")
        {
            archive.symlink(&format!("bin/{applet}"), "busybox");
        }
        Ok(archive)
    }

    /// Adds a folder.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, (0, 0), &[]);
    }

    /// Adds a file that may be executed.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, EXECUTABLE, (0, 0), content);
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, to: &str) {
        self.entry(path, SYMLINK, (0, 0), to.as_bytes());
    }

    /// Adds a file of this machine.
    pub fn copy(&mut self, from: &Path, path: &str) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(path, &content);
        Ok(())
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.inode += 1;
        let size = u32::try_from(content.len()).expect("files of a guest are smaller than 4 GiB");
        let name_size = u32::try_from(path.len() + 1).expect("paths are short");
        // inode, mode, uid, gid, links, mtime, size, device, device of a special file, name's size with its NUL, checksum (unused)
        let header = [
            self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in header {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// busybox's cpio, which somebody else wrote, reads the archive.
    fn cpio(arguments: &[&str], archive: &[u8], folder: &Path) -> String {
        let mut child = Command::new("busybox")
            .arg("cpio")
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(archive).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn cpio_unpacks_what_was_packed() {
        let mut archive = Initramfs::default();
        archive.directory("d");
        for length in 0..9 {
            archive.file(&format!("d/{}", "x".repeat(length + 1)), &vec![b'a'; length]);
        }
        archive.symlink("link", "d/x");
        let archive = archive.finish();
        assert_eq!(archive.len() % 4, 0);

        let folder = std::env::temp_dir().join(format!("dprobes-cpio-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(cpio(&["-t"], &archive, &folder).lines().count(), 11);
        cpio(&["-i", "--quiet"], &archive, &folder);
        for length in 0..9 {
            let content = fs::read(folder.join("d").join("x".repeat(length + 1))).unwrap();
            assert_eq!(content, vec![b'a'; length]);
        }
        assert_eq!(fs::read_link(folder.join("link")).unwrap(), Path::new("d/x"));
        fs::remove_dir_all(folder).unwrap();
    }
}
