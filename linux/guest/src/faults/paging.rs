//! Faults that bring memory in: the instruction is carried out again, and the task may sleep for long in between.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::mm::{MprotectFlags, UserfaultfdFlags, userfaultfd};

use super::area::{Area, PAGE};
use super::cases::{COMPLETED, FIXED_UP, Faults, RECORD, Run};
use crate::device::Device;
use crate::machine::{Module, symbol};
use crate::{Outcome, ensure, program};

/// How the memory is before a run, and how the run has to end.
const STATES: [(&str, u64); 5] = [
    ("there", COMPLETED),
    ("dropped", COMPLETED),
    ("dropped, the second page not accessible", FIXED_UP),
    ("not accessible", FIXED_UP),
    ("not mapped", FIXED_UP),
];

/// Brings memory into such a state, and gives the address to access: the access reaches from the first into the second page.
fn prepare(area: &Area, state: &str, before_the_end: u64) -> io::Result<u64> {
    let all = MprotectFlags::READ | MprotectFlags::WRITE;
    area.protect(0, all)?;
    area.protect(1, all)?;
    area.touch();
    match state {
        "there" => {}
        "dropped" => area.drop_pages()?,
        "dropped, the second page not accessible" => {
            area.drop_pages()?;
            area.protect(1, MprotectFlags::empty())?;
        }
        "not accessible" => area.protect(0, MprotectFlags::empty())?,
        // The first page of every address space.
        _ => return Ok(PAGE as u64 - before_the_end),
    }
    Ok(area.page(1) - before_the_end)
}

pub fn paged_in() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, faults) = (Device::open()?, Faults::load()?);
    let pattern = Vec::from_iter((0..4 * PAGE).map(|at| at as u8));
    fs::write("/tmp/paged", &pattern)?;
    let file = fs::File::open("/tmp/paged")?;
    let (mut completed, mut fixed_up, mut brought_in) = (0, 0, 0);
    for (kind, from) in [("anonymous", Area::anonymous()?), ("file", Area::of_file(&file)?)] {
        let to = Area::anonymous()?;
        for name in ["user_load", "user_copy"] {
            for (state, outcome) in STATES {
                let what = format!("{name}, {kind}, {state}");
                let run = || -> io::Result<Run> {
                    let rsi = prepare(&from, state, if name == "user_load" { 4 } else { 1000 })?;
                    to.drop_pages()?;
                    let (rdi, rcx) = (to.page(1) - 500, 2000);
                    faults.run(Run {
                        rsi,
                        rdi,
                        rcx,
                        ..Run::of(name)
                    })
                };
                let bare = run()?;
                device.insert(&program::at(1, &[faults.instruction(name)], RECORD))?;
                let probed = run()?;
                let last = device.remove("kernel", 1)?[0];
                let records = device.records()?.len() as u64;
                ensure!(probed == bare, "{what}\nbare   {bare:x?}\nprobed {probed:x?}");
                ensure!(probed.outcome == outcome, "{what}: {probed:x?}");
                let once = u64::from(outcome == COMPLETED);
                ensure!(
                    (last.hits, records) == (once, once),
                    "{what}: {records} records, {last:?}"
                );
                ensure!(last.missed + last.late + last.lost == 0, "{what}: {last:?}");
                // The fault that was not recovered from, and those that were.
                let at_least = 1 - once + u64::from(state.starts_with("dropped"));
                ensure!(last.faulted >= at_least, "{what}: {last:?}");
                brought_in += last.faulted - (1 - once);
                completed += once;
                fixed_up += 1 - once;
            }
        }
    }
    println!("    {completed} completed, {fixed_up} fixed up, {brought_in} faults brought memory in");
    Ok(())
}

/// `struct uffdio_api`, `uffdio_register`, `uffdio_copy` of linux/userfaultfd.h.
#[derive(Default)]
#[repr(C)]
struct Api([u64; 3]);
#[derive(Default)]
#[repr(C)]
struct Register([u64; 4]);
#[derive(Default)]
#[repr(C)]
struct Copy([u64; 5]);

const UFFDIO_API: Opcode = opcode::read_write::<Api>(0xaa, 0x3f);
const UFFDIO_REGISTER: Opcode = opcode::read_write::<Register>(0xaa, 0x00);
const UFFDIO_COPY: Opcode = opcode::read_write::<Copy>(0xaa, 0x03);

/// Memory whose faults wait until this process resolves them.
pub struct Pager(OwnedFd);

impl Pager {
    /// For an area.
    pub fn of(area: &Area) -> io::Result<Self> {
        // SAFETY: the descriptor is used for the area alone.
        let pager = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) }?;
        let mut api = Api([0xaa, 0, 0]);
        // SAFETY: the kernel writes the argument.
        unsafe { ioctl(&pager, Updater::<UFFDIO_API, _>::new(&mut api)) }?;
        const MISSING: u64 = 1;
        let mut register = Register([area.page(0), 4 * PAGE as u64, MISSING, 0]);
        // SAFETY: the kernel writes the argument.
        unsafe { ioctl(&pager, Updater::<UFFDIO_REGISTER, _>::new(&mut register)) }?;
        Ok(Pager(pager))
    }

    /// Waits until somebody sleeps in a fault, and says at which address.
    pub fn wait(&self) -> io::Result<u64> {
        let mut message = [0; 32];
        rustix::io::read(self.0.as_fd(), &mut message)?;
        let (_, address) = message.split_at(16);
        Ok(u64::from_ne_bytes(
            *address.first_chunk().expect("a message has 32 bytes"),
        ))
    }

    /// Gives a page its content, and wakes whoever waits for it.
    pub fn resolve(&self, page: u64, content: &[u8; PAGE]) -> io::Result<()> {
        let mut copy = Copy([page, content.as_ptr().expose_provenance() as u64, PAGE as u64, 0, 0]);
        // SAFETY: the kernel reads the page, fills the area with it, and writes the argument.
        Ok(unsafe { ioctl(&self.0, Updater::<UFFDIO_COPY, _>::new(&mut copy)) }?)
    }
}

/// The task has to come back to the instruction itself: the slot is long gone, and with it the module.
pub fn asleep_while_the_module_is_unloaded() -> Outcome {
    let faults = Faults::load()?;
    let area = Area::anonymous()?;
    let pager = Pager::of(&area)?;
    for round in 0..4 {
        area.drop_pages()?;
        let module = Module::dprobes()?;
        let device = Device::open()?;
        device.insert(&program::at(1, &[faults.instruction("user_load")], RECORD))?;
        thread::scope(|scope| -> Outcome {
            let (faults, rsi) = (&faults, area.page(1) - 4);
            let sleeper = scope.spawn(move || {
                faults.run(Run {
                    rsi,
                    ..Run::of("user_load")
                })
            });
            pager.wait()?;
            let last = device.remove("kernel", 1)?[0];
            // The slot is used for something else, or the module is gone.
            let again = if round % 2 == 0 {
                device.remove_all()?;
                let places = ["vfs_read", "vfs_write", "do_sys_openat2", "ksys_read"].map(symbol);
                device.insert(&program::at(1, &places, program::COUNT))?;
                Some((device, module))
            } else {
                drop(device);
                module.unload()?;
                None
            };
            let mut content = [round as u8; PAGE];
            pager.resolve(area.page(0), &content)?;
            pager.wait()?;
            content.fill(0xa0 + round as u8);
            pager.resolve(area.page(1), &content)?;
            let run = sleeper.join().expect("a sleeper does not panic")?;
            drop(again);
            let read = u64::from_le_bytes(
                [[round as u8; 4], [0xa0 + round as u8; 4]]
                    .concat()
                    .try_into()
                    .expect("eight bytes"),
            );
            ensure!((run.outcome, run.rdx) == (COMPLETED, read), "{run:x?}");
            ensure!((last.hits, last.faulted) == (0, 1), "{last:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// With the lock of the address space taken, the page-fault handler looks for an exception-table entry before it waits for the lock.
pub fn with_the_address_space_contended() -> Outcome {
    const ROUNDS: u64 = 500;
    let _module = Module::dprobes()?;
    let (device, faults) = (Device::open()?, Faults::load()?);
    let (from, to) = (Area::anonymous()?, Area::anonymous()?);
    let names = ["user_load", "user_copy"];
    device.insert(&program::at(1, &names.map(|name| faults.instruction(name)), RECORD))?;
    let working = AtomicBool::new(true);
    let mut expected = [0; 2];
    let mut records = [0; 2];
    let changes = thread::scope(|scope| -> Result<u64, libtest_mimic::Failed> {
        let changers = [(); 2].map(|()| {
            scope.spawn(|| -> io::Result<u64> {
                let mut changes = 0;
                while working.load(Ordering::Relaxed) {
                    let area = Area::anonymous()?;
                    area.touch();
                    area.protect(1, MprotectFlags::READ)?;
                    changes += 1;
                }
                Ok(changes)
            })
        });
        let result = (|| -> Outcome {
            for round in 0..ROUNDS {
                let (state, outcome) = STATES[round as usize % STATES.len()];
                for (index, name) in names.into_iter().enumerate() {
                    let rsi = prepare(&from, state, if name == "user_load" { 4 } else { 1000 })?;
                    to.drop_pages()?;
                    let (rdi, rcx) = (to.page(1) - 500, 2000);
                    let run = faults.run(Run {
                        rsi,
                        rdi,
                        rcx,
                        ..Run::of(name)
                    })?;
                    ensure!(run.outcome == outcome, "{name}, {state}: {run:x?}");
                    expected[index] += u64::from(outcome == COMPLETED);
                }
                // Reading waits for a grace period.
                if round % 100 == 0 {
                    for (header, _) in device.records()? {
                        records[usize::from(header.minor) - 1] += 1;
                    }
                }
            }
            Ok(())
        })();
        working.store(false, Ordering::Relaxed);
        let mut changes = 0;
        for changer in changers {
            changes += changer.join().expect("a changer does not panic")?;
        }
        result.map(|()| changes)
    })?;
    let last = device.remove("kernel", 1)?;
    for (header, _) in device.records()? {
        records[usize::from(header.minor) - 1] += 1;
    }
    let hits = [last[0].hits, last[1].hits];
    println!(
        "    {ROUNDS} rounds beside {changes} changes of the address space; {expected:?} completed, {} and {} faulted",
        last[0].faulted, last[1].faulted
    );
    ensure!(
        hits == expected && records == expected,
        "completed {expected:?}, hits {hits:?}, records {records:?}"
    );
    ensure!(
        last.iter().all(|probe| probe.missed + probe.late + probe.lost == 0),
        "{last:?}"
    );
    ensure!(
        changes > ROUNDS / 10,
        "the address space was changed {changes} times only"
    );
    Ok(())
}
