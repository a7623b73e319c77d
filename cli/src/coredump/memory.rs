//! What a core dump has of a process's memory, and how that is read.
//!
//! It is what the kernel's own dumps have, as core(5) says of the bits of coredump_filter that are set at first: what is in no file, or differs from the file, and the first page of
//! programs and libraries. Devices are not read.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use elfcore::{ReadProcessMemory, VaProtection, VaRegion};

use super::{CoreError, PAGE, open, read};

/// A part of the memory, as smaps describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Region {
    range: Range<u64>,
    permissions: String,
    offset: u64,
    name: String,
    /// KiB that are no file's.
    anonymous: u64,
    /// Two letters each, see proc(5).
    flags: String,
}

impl Region {
    fn has(&self, flag: &str) -> bool {
        self.flags.split_ascii_whitespace().any(|one| one == flag)
    }

    fn may(&self, what: char) -> bool {
        self.permissions.contains(what)
    }

    /// Is a file behind it that others can find?
    fn is_of_file(&self) -> bool {
        self.name.starts_with('/') && !self.name.ends_with(" (deleted)")
    }

    /// Which part of it is dumped.
    fn dumped(&self) -> Range<u64> {
        let none = self.range.start..self.range.start;
        let inaccessible = !self.may('r') && !self.may('w') && !self.may('x');
        // Devices, what a program asks to be left out, and what the kernel shows of itself.
        if ["io", "pf", "dd"].into_iter().any(|flag| self.has(flag)) || self.name == "[vsyscall]" {
            return none;
        }
        if self.anonymous > 0 {
            return self.range.clone();
        }
        match (self.is_of_file(), self.may('s')) {
            _ if inaccessible => none,
            (false, _) => self.range.clone(),
            (true, false) if self.offset == 0 => self.range.start..self.range.end.min(self.range.start + PAGE as u64),
            (true, _) => none,
        }
    }
}

impl From<Region> for VaRegion {
    fn from(region: Region) -> Self {
        VaRegion {
            begin: region.range.start,
            end: region.range.end,
            offset: region.offset,
            protection: VaProtection {
                is_private: region.may('p'),
                read: region.may('r'),
                write: region.may('w'),
                execute: region.may('x'),
            },
            mapped_file_name: region.is_of_file().then_some(region.name),
        }
    }
}

/// The regions that are dumped, each cut to what is dumped of it.
pub fn regions(folder: &Path) -> Result<Vec<Region>, CoreError> {
    let text = read(folder.join("smaps"))?;
    let regions = parse(&String::from_utf8_lossy(&text)).into_iter().map(|region| Region {
        range: region.dumped(),
        ..region
    });
    let regions: Vec<Region> = regions.filter(|region| !region.range.is_empty()).collect();
    // A process that has no memory has ended.
    if regions.is_empty() {
        return Err(CoreError::NoProcess);
    }
    Ok(regions)
}

fn parse(smaps: &str) -> Vec<Region> {
    let mut regions: Vec<Region> = Vec::new();
    for line in smaps.lines() {
        if let Some(region) = first_line(line) {
            regions.push(region);
            continue;
        }
        let (Some(region), Some((key, value))) = (regions.last_mut(), line.split_once(':')) else {
            continue;
        };
        let number = || {
            value
                .split_ascii_whitespace()
                .next()
                .and_then(|number| number.parse().ok())
        };
        match key {
            "Anonymous" | "Swap" | "Private_Hugetlb" => region.anonymous += number().unwrap_or(0),
            "VmFlags" => value.trim().clone_into(&mut region.flags),
            _ => {}
        }
    }
    regions
}

/// `BEGIN-END PERMISSIONS OFFSET DEVICE INODE NAME`
fn first_line(line: &str) -> Option<Region> {
    let mut fields = line.splitn(6, ' ');
    let (begin, end) = fields.next()?.split_once('-')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some(Region {
        range: hex(begin)?..hex(end)?,
        permissions: fields.next()?.to_owned(),
        offset: hex(fields.next()?)?,
        name: fields.nth(2).unwrap_or("").trim_start().to_owned(),
        ..Region::default()
    })
}

/// Reads the memory of a process.
pub struct Reader {
    memory: File,
    pages: File,
    /// Where there is nothing but what the page tables have, in ascending order.
    anonymous: Vec<Range<u64>>,
    gone: Rc<Cell<bool>>,
}

impl Reader {
    /// Of the process that has this folder in /proc.
    pub fn open(folder: &Path, regions: &[Region]) -> Result<Self, CoreError> {
        let anonymous = regions
            .iter()
            .filter(|region| region.name.is_empty() && region.may('p'));
        Ok(Reader {
            memory: open(folder.join("mem"))?,
            pages: open(folder.join("pagemap"))?,
            anonymous: anonymous.map(|region| region.range.clone()).collect(),
            gone: Rc::default(),
        })
    }

    /// Says, when all has been read, whether the process had ended before that.
    pub fn gone(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.gone)
    }

    /// Is nothing there but zeros, because it was never written to? To read it would make pages of it.
    fn is_untouched(&self, base: u64, length: usize) -> bool {
        const PRESENT_OR_SWAPPED: u64 = 3 << 62;
        let index = self.anonymous.partition_point(|range| range.end <= base);
        let inside = self
            .anonymous
            .get(index)
            .is_some_and(|range| range.contains(&base) && base + length as u64 <= range.end);
        let (first, last) = (base / PAGE as u64, (base + length as u64).div_ceil(PAGE as u64));
        let mut entries = vec![0; (last - first) as usize * 8];
        inside
            && self.pages.read_exact_at(&mut entries, first * 8).is_ok()
            && entries
                .chunks_exact(8)
                .all(|entry| entry.try_into().map_or(0, u64::from_le_bytes) & PRESENT_OR_SWAPPED == 0)
    }
}

impl ReadProcessMemory for Reader {
    fn read_process_memory(&mut self, base: usize, buffer: &mut [u8]) -> Result<usize, elfcore::CoreError> {
        if self.is_untouched(base as u64, buffer.len()) {
            buffer.fill(0);
            return Ok(buffer.len());
        }
        match self.memory.read_at(buffer, base as u64) {
            // The process has no memory any more.
            Ok(0) => {
                self.gone.set(true);
                Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
            }
            done => Ok(done?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55d0c0000000-55d0c0002000 r--p 00000000 08:01 1234                       /bin/with a space
Size:                  8 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd
55d0c0002000-55d0c0003000 r-xp 00002000 08:01 1234                       /bin/with a space
Anonymous:             4 kB
VmFlags: rd ex mr mw me sd
55d0c0003000-55d0c0005000 r-xp 00003000 08:01 1234                       /bin/with a space
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
7f0000000000-7f0000100000 rw-p 00000000 00:00 0 
Anonymous:             8 kB
VmFlags: rd wr mr mw me ac sd
7f0000100000-7f0000200000 ---p 00000000 00:00 0 
Anonymous:             0 kB
VmFlags: mr mw me sd
7f0000200000-7f0000300000 rw-s 00000000 00:01 5                          /dev/zero (deleted)
Anonymous:             0 kB
VmFlags: rd wr sh mr mw me ms sd
7f0000300000-7f0000400000 rw-s 00000000 00:05 7                          /dev/mem
Anonymous:             0 kB
VmFlags: rd wr sh mr mw me ms io pf dd sd
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
Anonymous:             0 kB
VmFlags: ex
";

    #[test]
    fn what_the_kernel_dumps_is_dumped() {
        let regions = parse(SMAPS);
        assert_eq!(regions.len(), 8);
        assert_eq!(regions[0].name, "/bin/with a space");
        assert_eq!(regions[3].name, "");
        let dumped: Vec<u64> = regions
            .iter()
            .map(|region| {
                let dumped = region.dumped();
                dumped.end - dumped.start
            })
            .collect();
        assert_eq!(dumped, [0x1000, 0x1000, 0, 0x10_0000, 0, 0x10_0000, 0, 0]);
    }

    #[test]
    fn memory_is_read_and_what_was_never_written_makes_no_pages() {
        let mut known = vec![0_u8; 64 << 20];
        known[20 << 20] = 7;
        let folder = Path::new("/proc/self");
        let regions = regions(folder).unwrap();
        let mut reader = Reader::open(folder, &regions).unwrap();
        let base = (known.as_ptr() as usize + (20 << 20)) & !(PAGE - 1);
        let mut buffer = vec![9; PAGE];
        assert_eq!(reader.read_process_memory(base, &mut buffer).unwrap(), PAGE);
        assert_eq!(buffer, known[base - known.as_ptr() as usize..][..PAGE]);
        assert!(!reader.is_untouched(base as u64, PAGE));
        assert!(reader.is_untouched(base as u64 + (8 << 20), 16 * PAGE));
        assert!(reader.read_process_memory(16, &mut buffer).is_err());
        assert!(!reader.gone().get());
    }
}
