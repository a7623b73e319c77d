//! What the boot loader tells: `struct hvm_start_info` of the PVH boot protocol (xen/include/public/arch-x86/hvm/start_info.h).

use core::ops::Range;

use spin::Once;

use crate::memory::boot_bytes;

const MAGIC: u32 = 0x336e_c578;
const MEMORY_RAM: u32 = 1;
const MAX_REGIONS: usize = 32;
const MAX_COMMAND_LINE: usize = 1024;

/// Facts of this boot, copied out of the loader's memory.
#[derive(Debug)]
pub struct BootInfo {
    /// Physical address of the ACPI root pointer, if the loader found one.
    pub(crate) rsdp: Option<u64>,
    /// Where the first boot module (`-initrd`) is in physical memory.
    pub(crate) module: Option<Range<u64>>,
    regions: [Region; MAX_REGIONS],
    region_count: usize,
    command_line: [u8; MAX_COMMAND_LINE],
    command_line_len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Region {
    start: u64,
    end: u64,
    kind: u32,
}

static BOOT_INFO: Once<BootInfo> = Once::new();

/// The facts of this boot.
///
/// # Panics
///
/// Before the kernel has parsed them, which it does before anything else can call this.
pub fn boot_info() -> &'static BootInfo {
    BOOT_INFO.get().expect("boot information is parsed first")
}

impl BootInfo {
    /// Ranges of usable RAM, as physical addresses.
    pub fn ram(&self) -> impl Iterator<Item = Range<u64>> {
        self.regions[..self.region_count]
            .iter()
            .filter(|region| region.kind == MEMORY_RAM)
            .map(|r| r.start..r.end)
    }

    /// The kernel command line (`-append`), up to 1024 bytes; empty if it is not UTF-8.
    pub fn command_line(&self) -> &str {
        core::str::from_utf8(&self.command_line[..self.command_line_len]).unwrap_or("")
    }
}

fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[offset..offset + N]);
    field
}

/// Reads the start information at physical address `start_info`.
pub(crate) fn init(start_info: u64) {
    let header = boot_bytes(start_info, 56);
    assert_eq!(
        u32::from_le_bytes(field(header, 0)),
        MAGIC,
        "not a PVH boot: no start information at {start_info:#x}"
    );
    let modules = u32::from_le_bytes(field(header, 12));
    let module_list = u64::from_le_bytes(field(header, 16));
    let version = u32::from_le_bytes(field(header, 4));
    assert!(
        version >= 1,
        "PVH start information of version {version} has no memory map"
    );
    let command_line = u64::from_le_bytes(field(header, 24));
    let rsdp = u64::from_le_bytes(field(header, 32));
    let map = u64::from_le_bytes(field(header, 40));
    let entries = u32::from_le_bytes(field(header, 48)) as usize;

    let mut info = BootInfo {
        rsdp: (rsdp != 0).then_some(rsdp),
        module: (modules > 0).then(|| {
            let entry = boot_bytes(module_list, 16);
            let start = u64::from_le_bytes(field(entry, 0));
            start..start + u64::from_le_bytes(field(entry, 8))
        }),
        regions: [Region {
            start: 0,
            end: 0,
            kind: 0,
        }; MAX_REGIONS],
        region_count: entries.min(MAX_REGIONS),
        command_line: [0; MAX_COMMAND_LINE],
        command_line_len: 0,
    };
    for (region, entry) in info
        .regions
        .iter_mut()
        .zip(boot_bytes(map, entries * 24).chunks_exact(24))
    {
        let start = u64::from_le_bytes(field(entry, 0));
        let size = u64::from_le_bytes(field(entry, 8));
        *region = Region {
            start,
            end: start.saturating_add(size),
            kind: u32::from_le_bytes(field(entry, 16)),
        };
    }
    if command_line != 0 {
        let bytes = boot_bytes(command_line, MAX_COMMAND_LINE);
        info.command_line_len = bytes.iter().position(|&byte| byte == 0).unwrap_or(0);
        info.command_line.copy_from_slice(bytes);
    }
    BOOT_INFO.call_once(|| info);
}
