//! The rings, mapped: reading records without system calls.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::thread;

use dprobes::record::header::{Header, RecordState};
use dprobes::wire::{
    IOCTL_RINGS, RINGS_FREEZE, RINGS_KEEP_NEWEST, RINGS_KEEP_OLDEST, RINGS_LOOK, RINGS_SETTLE, RingControl,
    RingsRequest,
};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect, munmap};

use crate::device::Device;
use crate::machine::{self, Module, Target};
use crate::records::ROUND;
use crate::{Outcome, ensure, program};

pub const TESTS: &crate::Tests = &[
    ("they_have_what_reading_gives", they_have_what_reading_gives),
    (
        "a_flight_recorder_is_read_while_it_is_written",
        a_flight_recorder_is_read_while_it_is_written,
    ),
    ("nobody_writes_to_them", nobody_writes_to_them),
    (
        "who_froze_them_thaws_them_by_closing",
        who_froze_them_thaws_them_by_closing,
    ),
];

fn rings(device: &Device, action: u32) -> Result<RingsRequest, Errno> {
    let mut request = RingsRequest {
        action,
        ..RingsRequest::default()
    };
    // SAFETY: the kernel writes the request.
    unsafe { device.request::<IOCTL_RINGS, _>(&mut request) }?;
    Ok(request)
}

/// The ring of a CPU, and how far it has been read.
struct Mapped {
    base: *const u8,
    control: usize,
    data: usize,
    at: u64,
}

// SAFETY: nothing but atomic loads from memory that stays.
unsafe impl Send for Mapped {}

impl Mapped {
    fn new(device: &Device, cpu: u64) -> Result<Self, Errno> {
        let facts = rings(device, RINGS_LOOK)?;
        let (control, data) = (facts.control as usize, facts.data as usize);
        let size = control + data;
        // SAFETY: new memory, wherever there is room.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                size,
                ProtFlags::READ,
                MapFlags::SHARED,
                &device.file,
                cpu * size as u64,
            )?
        };
        let mut mapped = Mapped {
            base: base.cast_const().cast(),
            control,
            data,
            at: 0,
        };
        mapped.at = mapped.field(std::mem::offset_of!(RingControl, tail));
        Ok(mapped)
    }

    /// A field of the control page, acquired.
    fn field(&self, offset: usize) -> u64 {
        // SAFETY: in the mapping, which is only read, and aligned.
        unsafe { &*self.base.add(offset).cast::<AtomicU64>() }.load(Ordering::Acquire)
    }

    fn word(&self, position: u64) -> u64 {
        let offset = (position as usize * 8) & (self.data - 1);
        // SAFETY: as above.
        unsafe { &*self.base.add(self.control + offset).cast::<AtomicU64>() }.load(Ordering::Relaxed)
    }

    /// The next record, as `struct dprobes_ring_control` says; `None` when there is none, or it may not have completed.
    fn next(&mut self) -> Option<Vec<u64>> {
        loop {
            if self.at == self.field(std::mem::offset_of!(RingControl, head)) {
                return None;
            }
            let first = self.word(self.at);
            let state = first as u32;
            let settled = self.field(std::mem::offset_of!(RingControl, settled));
            let wait = state == RecordState::Provisional as u32 && self.at >= settled;
            let words = (first >> 35).min(self.data as u64 / 8);
            let record: Vec<u64> = (self.at..self.at + words).map(|position| self.word(position)).collect();
            fence(Ordering::Acquire);
            let tail = self.field(std::mem::offset_of!(RingControl, tail));
            if tail > self.at {
                self.at = tail;
                continue;
            }
            if wait {
                return None;
            }
            self.at += words;
            if state != RecordState::Discarded as u32 {
                return Some(record);
            }
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody uses it any more.
        let _ = unsafe { munmap(self.base.cast_mut().cast(), self.control + self.data) };
    }
}

/// The head of a record, but for what is the kernel's business, and the word that ROUND logs.
fn parts(record: &[u64]) -> (Header, u64) {
    let bytes: Vec<u8> = record.iter().flat_map(|word| word.to_le_bytes()).collect();
    let header = Header::parse(&bytes).expect("a record");
    let word = bytes[Header::SIZE + 3..][..8].try_into().expect("eight bytes");
    let header = Header {
        state: RecordState::Published as u32,
        facts: 0,
        ..header
    };
    (header, u64::from_le_bytes(word))
}

fn they_have_what_reading_gives() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(0)?);
    device.insert(&program::at(1, &[target.middle()], ROUND))?;
    let mut mapped = Mapped::new(&device, 0)?;
    for round in 0..4 {
        thread::scope(|scope| {
            let run = scope.spawn(|| {
                machine::pin(0);
                target.run(1500)
            });
            run.join().expect("it does not panic")
        })?;
        rings(&device, RINGS_SETTLE)?;
        let mut seen = Vec::new();
        while let Some(record) = mapped.next() {
            seen.push(parts(&record));
        }
        let read: Vec<(Header, u64)> = device
            .records()?
            .into_iter()
            .map(|(header, bytes)| {
                let word = bytes[3..][..8].try_into().expect("eight bytes");
                (header, u64::from_le_bytes(word))
            })
            .collect();
        ensure!(
            seen == read,
            "round {round}: {} mapped, {} read",
            seen.len(),
            read.len()
        );
        ensure!(seen.len() == 1500, "round {round}: {}", seen.len());
    }
    Ok(())
}

fn a_flight_recorder_is_read_while_it_is_written() -> Outcome {
    const ROUNDS: u64 = 60_000;
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(0)?);
    device.insert(&program::at(1, &[target.middle()], ROUND))?;
    rings(&device, RINGS_KEEP_NEWEST)?;
    let mut mapped = Mapped::new(&device, 0)?;
    let done = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            machine::pin(1);
            let mut seen: Vec<u64> = Vec::new();
            let mut finished = false;
            loop {
                while let Some(record) = mapped.next() {
                    seen.push(parts(&record).1);
                }
                if finished {
                    return (seen, mapped);
                }
                finished = done.load(Ordering::Acquire);
                if finished {
                    rings(&device, RINGS_SETTLE).expect("settling succeeds");
                }
            }
        });
        let run = scope.spawn(|| {
            machine::pin(0);
            target.run(ROUNDS)
        });
        run.join().expect("it does not panic")?;
        done.store(true, Ordering::Release);
        Ok::<_, libtest_mimic::Failed>(reader.join().expect("it does not panic"))
    })?;
    let (seen, mapped) = seen;
    let overwritten = mapped.field(std::mem::offset_of!(RingControl, overwritten));
    ensure!(seen.is_sorted_by(|a, b| a < b), "out of order");
    ensure!(seen.last() == Some(&ROUNDS), "{:?}", seen.last());
    let missed = ROUNDS - seen.len() as u64;
    ensure!(missed <= overwritten, "{missed} missed, {overwritten} overwritten");
    ensure!(overwritten > 0, "it was never full");
    // Reading gives the rest, and tells of the others.
    let (mut read, mut lost) = (0, 0);
    for (header, _) in device.records()? {
        if header.state == RecordState::Lost as u32 {
            lost += header.facts;
        } else {
            read += 1;
        }
    }
    ensure!(read + lost == ROUNDS, "{read} read, {lost} lost");
    rings(&device, RINGS_KEEP_OLDEST)?;
    Ok(())
}

fn nobody_writes_to_them() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let facts = rings(&device, RINGS_LOOK)?;
    let size = facts.control as usize + facts.data as usize;
    let map = |size: usize, access, offset: u64| {
        // SAFETY: new memory, wherever there is room.
        unsafe { mmap(ptr::null_mut(), size, access, MapFlags::SHARED, &device.file, offset) }
    };
    let read = ProtFlags::READ;
    let cases = [
        (size, read | ProtFlags::WRITE, 0, Errno::PERM),
        (size, read | ProtFlags::EXEC, 0, Errno::PERM),
        (size - 4096, read, 0, Errno::INVAL),
        (size + 4096, read, 0, Errno::INVAL),
        (4096, read, 0, Errno::INVAL),
        (size, read, 4096, Errno::INVAL),
        (size, read, u64::from(facts.cpus) * size as u64, Errno::INVAL),
        (size, read, u64::MAX - 4095, Errno::OVERFLOW),
    ];
    for (size, access, offset, expected) in cases {
        let result = map(size, access, offset);
        let refused = result.as_ref().err() == Some(&expected) || (expected == Errno::OVERFLOW && result.is_err());
        ensure!(
            refused,
            "{size} at {offset:#x}, {access:?}: {result:?} instead of {expected}"
        );
    }
    let mapped = map(size, read, 0)?;
    // SAFETY: the mapping is ours.
    let result = unsafe { mprotect(mapped, size, MprotectFlags::READ | MprotectFlags::WRITE) };
    ensure!(result == Err(Errno::ACCESS), "{result:?}");
    // SAFETY: as above; nobody uses it any more.
    unsafe { munmap(mapped, size) }?;
    ensure!(
        rings(&device, 77).err() == Some(Errno::INVAL),
        "an action that there is not"
    );
    Ok(())
}

fn who_froze_them_thaws_them_by_closing() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, target) = (Device::open()?, Target::load(0)?);
    device.insert(&program::at(1, &[target.middle()], ROUND))?;
    let other = Device::open()?;
    rings(&other, RINGS_FREEZE)?;
    target.run(3)?;
    drop(other);
    target.run(2)?;
    let records = device.records()?;
    let lost: u64 = records.iter().map(|(header, _)| header.facts).sum();
    ensure!((records.len(), lost) == (3, 3), "{records:?}");
    Ok(())
}
