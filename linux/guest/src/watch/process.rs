//! Watchpoints in one process: what its threads do, those that begin later among them, and nothing that anybody else does.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{process, ptr, thread};

use dprobes::wire::{Reason, State};

use super::{SOME, Watched, status, watch};
use crate::device::Device;
use crate::machine::{self, Module};
use crate::{Outcome, ensure, program};

/// A word of this process, which its children have at the same address.
static WORD: AtomicU64 = AtomicU64::new(0);

fn store() {
    for n in 1..=SOME {
        WORD.store(n, Ordering::Relaxed);
    }
}

/// Threads that are there, that begin later, and that are begun by those; not a child.
pub fn every_thread_and_no_child() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let address = (&raw const WORD).expose_provenance() as u64;
    let (inserted, stored) = (Barrier::new(3), Barrier::new(3));
    let done: Result<(), libtest_mimic::Failed> = thread::scope(|scope| {
        for cpu in 0..2 {
            let (inserted, stored) = (&inserted, &stored);
            scope.spawn(move || {
                machine::pin(cpu);
                inserted.wait();
                store();
                thread::scope(|scope| scope.spawn(store).join()).expect("storing does not panic");
                stored.wait();
            });
        }
        let done = device.insert_in(process::id(), &watch(1, address, "write 8", program::COUNT));
        inserted.wait();
        store();
        thread::scope(|scope| scope.spawn(store).join()).expect("storing does not panic");
        // SAFETY: the child stores to a word of its own and ends, without anything that another thread may have had a hand in.
        match unsafe { libc::fork() } {
            0 => {
                store();
                // SAFETY: ends the child.
                unsafe { libc::_exit(0) }
            }
            child => {
                // SAFETY: waits for the child; its status is not asked for.
                let waited = unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
                stored.wait();
                done?;
                ensure!(waited == child, "the child is not waited for: {waited}");
            }
        }
        Ok(())
    });
    done?;
    let probe = status(&device, 1)?;
    ensure!(
        (probe.hits, probe.missed, probe.process) == (6 * SOME, 0, process::id()),
        "{SOME} stores in each of six threads: {probe:?}"
    );
    Ok(())
}

/// A word of the kernel's, which several processes have written; and the process becomes another program.
pub fn a_word_of_the_kernels() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, watched) = (Device::open()?, Watched::load()?);
    let script = format!(
        "read x; echo store {SOME} >/dev/dprobes_watched; read x; exec sh -c 'echo store {SOME} >/dev/dprobes_watched'"
    );
    let mut shell = Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn()?;
    let mut go_on = shell.stdin.take().ok_or("a pipe was asked for")?;
    device.insert_in(shell.id(), &watch(1, watched.word(), "write 8", program::COUNT))?;
    device.insert_in(process::id(), &watch(2, watched.word(), "write 8", program::COUNT))?;
    device.insert(&watch(3, watched.words(1), "write 8", program::COUNT))?;
    watched.work_everywhere("store", SOME)?;
    let ours = watched.get("stores");
    go_on.write_all(b"\n")?;
    while watched.get("stores") < ours + SOME {
        thread::yield_now();
    }
    go_on.write_all(b"\n")?;
    ensure!(shell.wait()?.success(), "the shell has failed");
    let all = watched.get("stores");
    let hits = |major| status(&device, major).map(|probe| probe.hits);
    ensure!(
        (all, hits(1)?, hits(2)?) == (ours + 2 * SOME, SOME, ours),
        "{all} stores, {ours} of them this process's: {:?}",
        device.query()?
    );
    ensure!(hits(3)? == all, "the word beside it, which everybody watches");
    // It has ended, and what watched it is taken out all the same.
    ensure!(
        status(&device, 1)?.state == State::Armed as u32,
        "{:?}",
        device.query()?
    );
    for major in 1..=3 {
        device.remove("kernel", major)?;
    }
    for major in 1..=4 {
        device.insert(&watch(major, watched.words(major.into()), "write 8", program::COUNT))?;
    }
    Ok(())
}

/// A number that no process has, or that is a thread's.
pub fn there_must_be_one() -> Outcome {
    /// More than the kernel counts processes to (PID_MAX_LIMIT).
    const NOBODY: u32 = 1 << 23;
    let _module = Module::dprobes()?;
    let (device, watched) = (Device::open()?, Watched::load()?);
    let object = watch(1, watched.word(), "write 8", program::COUNT);
    let refuses = |process| -> Outcome {
        let refused = device
            .insert_in(process, &object)
            .expect_err("there is no such process");
        ensure!(
            refused.reason() == Reason::NoProcess && refused.reply.detail == process,
            "{process}: {refused:?}"
        );
        Ok(())
    };
    refuses(NOBODY)?;
    // SAFETY: asks for the number of this thread.
    let of_this_thread = || refuses(unsafe { libc::gettid() }.cast_unsigned());
    thread::scope(|scope| scope.spawn(of_this_thread).join()).expect("asking does not panic")?;
    ensure!(device.query()?.is_empty(), "something was inserted");
    Ok(())
}
