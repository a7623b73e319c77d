//! The CPUs of the machine, from ACPI's MADT (ACPI specification 6.5, sections 5.2.5 to 5.2.12).

use crate::memory::boot_bytes;
use crate::percpu::MAX_CPUS;

const HEADER_LEN: usize = 36;
const LOCAL_APIC: u8 = 0;
const LOCAL_X2APIC: u8 = 9;
const ENABLED: u32 = 1;

/// Local APIC ids of the enabled CPUs, in the order of the table.
#[derive(Debug)]
pub(crate) struct Cpus {
    ids: [u32; MAX_CPUS],
    count: usize,
}

impl Cpus {
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids[..self.count]
    }

    fn push(&mut self, id: u32) {
        if let Some(slot) = self.ids.get_mut(self.count) {
            *slot = id;
            self.count += 1;
        }
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)) == 0
}

/// The whole table at physical address `at`, if its length and checksum are right.
fn table(at: u64) -> Option<&'static [u8]> {
    let len = u32_at(boot_bytes(at, HEADER_LEN), 4)? as usize;
    let bytes = boot_bytes(at, len);
    (len >= HEADER_LEN && sums_to_zero(bytes)).then_some(bytes)
}

/// Finds the MADT from the root pointer at physical address `rsdp` and lists the CPUs in it.
pub(crate) fn cpus(rsdp: u64) -> Option<Cpus> {
    let root = boot_bytes(rsdp, 36);
    if &root[..8] != b"RSD PTR " || !sums_to_zero(&root[..20]) {
        return None;
    }
    let (directory, entry_len) = match root[15] {
        0 => (u64::from(u32_at(root, 16)?), 4),
        _ => (u64_at(root, 24)?, 8),
    };
    let madt = table(directory)?[HEADER_LEN..]
        .chunks_exact(entry_len)
        .filter_map(|entry| {
            if entry_len == 4 {
                u32_at(entry, 0).map(u64::from)
            } else {
                u64_at(entry, 0)
            }
        })
        .filter(|&at| &boot_bytes(at, 4)[..4] == b"APIC")
        .find_map(table)?;

    let mut cpus = Cpus {
        ids: [0; MAX_CPUS],
        count: 0,
    };
    let mut rest = madt.get(HEADER_LEN + 8..)?;
    while let [kind, len, ..] = *rest {
        let entry = rest.get(..usize::from(len)).filter(|entry| entry.len() >= 2)?;
        match kind {
            LOCAL_APIC if u32_at(entry, 4)? & ENABLED != 0 => cpus.push(u32::from(*entry.get(3)?)),
            LOCAL_X2APIC if u32_at(entry, 8)? & ENABLED != 0 => cpus.push(u32_at(entry, 4)?),
            _ => {}
        }
        rest = &rest[entry.len()..];
    }
    Some(cpus)
}
