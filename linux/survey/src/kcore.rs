//! The memory of the running kernel, as `/proc/kcore` shows it: an ELF core whose segments are the kernel's address ranges.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use object::LittleEndian;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

/// The kernel's memory, open for reading.
#[derive(Debug)]
pub struct Kcore {
    file: File,
    /// Which addresses are where in the file.
    segments: Vec<(Range<u64>, u64)>,
}

impl Kcore {
    /// Opens it; that takes root, and a kernel that is not locked down.
    ///
    /// # Errors
    /// What the system said, or `InvalidData` when the file is no ELF core.
    pub fn open() -> io::Result<Self> {
        /// The headers are at the beginning: one of 64 bytes, one of 56 for each segment.
        const HEADERS: usize = 1 << 16;
        let invalid = |error: object::read::Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let file = File::open("/proc/kcore")?;
        let mut head = vec![0; HEADERS];
        let length = file.read_at(&mut head, 0)?;
        head.truncate(length);
        let header = FileHeader64::<LittleEndian>::parse(&*head).map_err(invalid)?;
        let segments = header
            .program_headers(LittleEndian, &*head)
            .map_err(invalid)?
            .iter()
            .filter(|segment| segment.p_type(LittleEndian) == PT_LOAD)
            .map(|segment| {
                let start = segment.p_vaddr(LittleEndian);
                let end = start.saturating_add(segment.p_filesz(LittleEndian));
                (start..end, segment.p_offset(LittleEndian))
            })
            .collect();
        Ok(Kcore { file, segments })
    }

    /// Reads `range`, which must lie in one segment.
    ///
    /// # Errors
    /// What the system said, or `NotFound` when the range is in no segment.
    pub fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let (segment, offset) = self
            .segments
            .iter()
            .find(|(segment, _)| segment.start <= range.start && range.end <= segment.end)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{range:#x?} is not in /proc/kcore")))?;
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.file
            .read_exact_at(&mut bytes, offset + (range.start - segment.start))?;
        Ok(bytes)
    }
}
