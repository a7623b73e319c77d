//! The Linux kernels installed on this machine, and the ELF image inside a compressed one.
//!
//! Tests read the instructions of a real kernel, and boot it, without a download: the kernel is the one that the distribution
//! installed in `/boot`.

#![warn(missing_docs)]
#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

/// A kernel to build for and to boot: one installed on this machine, unless somebody makes another known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its release, as `uname -r` would print it.
    pub release: String,
    /// The bootable image, `/boot/vmlinuz-RELEASE`.
    pub image: PathBuf,
    /// The folder that Kbuild needs to build a module for this kernel; it exists when the kernel's headers are installed.
    pub headers: PathBuf,
    /// The root of the file system in which that folder, and the tools for it, are; this machine's own if there is none.
    pub tools: Option<PathBuf>,
}

impl Kernel {
    /// The newest kernel in `/boot`.
    pub fn newest() -> Result<Self, Error> {
        Self::all()?.pop().ok_or(Error::NoKernel)
    }

    /// Every kernel in `/boot`, oldest release first.
    pub fn all() -> Result<Vec<Self>, Error> {
        let boot = Path::new("/boot");
        let entries = fs::read_dir(boot).map_err(|source| Error::Io {
            path: boot.into(),
            source,
        })?;
        let mut kernels: Vec<Self> = entries
            .filter_map(|entry| {
                let image = entry.ok()?.path();
                let release = image.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
                let headers = Path::new("/lib/modules").join(&release).join("build");
                Some(Self {
                    release,
                    image,
                    headers,
                    tools: None,
                })
            })
            .collect();
        kernels.sort_by(|a, b| compare_releases(&a.release, &b.release));
        Ok(kernels)
    }

    /// The kernel's ELF image: its sections, their bytes and addresses. Distributions strip its symbols.
    pub fn vmlinux(&self) -> Result<Vec<u8>, Error> {
        let image = fs::read(&self.image).map_err(|source| Error::Io {
            path: self.image.clone(),
            source,
        })?;
        extract(&image)
    }
}

/// Orders releases by their numbers, so that 6.10 comes after 6.9.
fn compare_releases(a: &str, b: &str) -> Ordering {
    fn parts(release: &str) -> Vec<(u64, &str)> {
        release
            .split(['.', '-', '+', '~'])
            .map(|part| (part.parse().unwrap_or(0), part))
            .collect()
    }
    parts(a).cmp(&parts(b))
}

/// Finds the ELF image in a bzImage, as the boot protocol says where it is, and decompresses it.
///
/// The fields are those of the kernel's Documentation/arch/x86/boot.rst: `setup_sects` at 0x1f1, the magic "HdrS" at 0x202,
/// the version at 0x206, `payload_offset` and `payload_length` (protocol 2.08 and later) at 0x248 and 0x24c.
pub fn extract(image: &[u8]) -> Result<Vec<u8>, Error> {
    let word = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    let version = image.get(0x206..0x208).map(|v| u16::from_le_bytes([v[0], v[1]]));
    if image.get(0x202..0x206) != Some(b"HdrS") || version < Some(0x208) {
        return Err(Error::NotBzImage);
    }
    let payload = (|| {
        // Four is what zero stands for; the boot sector itself comes before the setup sectors.
        let setup_sectors = match *image.get(0x1f1)? {
            0 => 4,
            n => usize::from(n),
        };
        let start = (setup_sectors + 1) * 512 + word(0x248)?;
        // The build appends the uncompressed size, four bytes, to what the compressor wrote.
        image.get(start..(start + word(0x24c)?).checked_sub(4)?)
    })()
    .ok_or(Error::NotBzImage)?;

    let tool = match payload {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "xz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0x1f, 0x8b, ..] => "gzip",
        [0x7f, b'E', b'L', b'F', ..] => return Ok(payload.to_vec()),
        _ => {
            return Err(Error::UnknownCompression {
                magic: payload.iter().copied().take(6).collect(),
            });
        }
    };
    let elf = decompress(tool, payload)?;
    if elf.starts_with(b"\x7fELF") {
        Ok(elf)
    } else {
        Err(Error::NotElf)
    }
}

fn decompress(tool: &'static str, payload: &[u8]) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Decompressor { tool, source };
    let mut child = Command::new(tool)
        .args(["-d", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let output = thread::scope(|scope| {
        // A decompressor that stops early closes its input; what it wrote decides, so an error here does not.
        scope.spawn(move || stdin.write_all(payload));
        child.wait_with_output()
    })
    .map_err(failed)?;
    Ok(output.stdout)
}

/// Why there is no kernel image to read.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// `/boot` holds no `vmlinuz-RELEASE`.
    NoKernel,
    /// A file could not be read.
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The image has no boot header of protocol 2.08 or later, or its payload lies outside it.
    NotBzImage,
    /// The payload is compressed in a way this crate does not know.
    UnknownCompression {
        /// Its first bytes, six at most.
        magic: Vec<u8>,
    },
    /// The decompressor could not be run.
    Decompressor {
        /// Its name.
        tool: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// What came out of the decompressor is no ELF image.
    NotElf,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKernel => write!(
                f,
                "/boot has no vmlinuz-RELEASE (Debian: apt-get install linux-image-amd64)"
            ),
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::NotBzImage => write!(f, "not a bzImage of boot protocol 2.08 or later"),
            Self::UnknownCompression { magic } => write!(f, "unknown compression, magic {magic:02x?}"),
            Self::Decompressor { tool, source } => write!(f, "cannot run {tool}: {source}"),
            Self::NotElf => write!(f, "the decompressed payload is no ELF image"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::Decompressor { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bzImage's header with one setup sector and `payload` after it, as the kernel's build leaves it.
    fn bz_image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32 + 4).to_le_bytes());
        image.extend_from_slice(payload);
        image.extend_from_slice(&[0; 4]);
        image
    }

    fn compress(tool: &str, data: &[u8]) -> Vec<u8> {
        let mut child = Command::new(tool)
            .arg("-c")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("compressor");
        child.stdin.take().unwrap().write_all(data).unwrap();
        child.wait_with_output().unwrap().stdout
    }

    #[test]
    fn every_compression_comes_out_as_it_went_in() {
        let elf = [b"\x7fELF".as_slice(), &[0x90; 5000]].concat();
        for tool in ["xz", "zstd", "gzip"] {
            assert_eq!(extract(&bz_image(&compress(tool, &elf))).unwrap(), elf, "{tool}");
        }
        assert_eq!(extract(&bz_image(&elf)).unwrap(), elf);
    }

    #[test]
    fn what_is_not_a_kernel_is_refused() {
        assert!(matches!(extract(b""), Err(Error::NotBzImage)));
        assert!(matches!(extract(&[0; 4096]), Err(Error::NotBzImage)));
        assert!(matches!(
            extract(&bz_image(b"what?")),
            Err(Error::UnknownCompression { .. })
        ));
        assert!(matches!(
            extract(&bz_image(&compress("xz", b"no ELF"))),
            Err(Error::NotElf)
        ));
        let mut cut = bz_image(&compress("xz", b"\x7fELF"));
        cut.truncate(1030);
        assert!(matches!(extract(&cut), Err(Error::NotBzImage)));
        let mut far = bz_image(b"\x7fELF");
        far[0x248..0x24c].copy_from_slice(&[0xff; 4]);
        assert!(matches!(extract(&far), Err(Error::NotBzImage)));
    }

    #[test]
    fn releases_are_ordered_by_number() {
        assert_eq!(compare_releases("6.9.0-1-amd64", "6.10.0-1-amd64"), Ordering::Less);
        assert_eq!(compare_releases("6.1.0-56-amd64", "6.1.0-9-amd64"), Ordering::Greater);
        assert_eq!(compare_releases("6.1.0-56-amd64", "6.1.0-56-amd64"), Ordering::Equal);
    }

    #[test]
    fn the_installed_kernel_is_an_elf_image() {
        let kernel = Kernel::newest().unwrap();
        assert!(kernel.vmlinux().unwrap().len() > 8 << 20, "{kernel:?}");
    }
}
