//! Instructions that the kernel rewrites while they run, jump labels and static calls, and those that it finds by their address, WARN and BUG: see
//! linux/testmod/patched.c.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use dprobes::host::Prohibited;
use dprobes::wire::{ProbeStatus, Reason};
use rustix::ioctl::{Updater, ioctl};

use crate::device::Device;
use crate::machine::{self, Module};
use crate::program::{self, COUNT};
use crate::{Outcome, ensure, kernel_log, sweep};

pub const TESTS: &crate::Tests = &[
    ("warnings_are_what_they_were", warnings_are_what_they_were),
    ("a_warning_can_be_passed_over", a_warning_can_be_passed_over),
    ("rewritten_while_probed", rewritten_while_probed),
    ("every_pass_is_counted", every_pass_is_counted),
    ("the_kernels_own", the_kernels_own),
    ("unloaded_while_probed", unloaded_while_probed),
    ("hooks_are_left_alone", hooks_are_left_alone),
    // The last: a task that dies inside of the module keeps it loaded.
    ("a_bug_is_what_it_was", a_bug_is_what_it_was),
];

/// A probe that leaves a record for each hit.
const RECORD: &str = "push r, rip\nlog 1\nexit";

/// `struct patched_run`.
#[repr(C)]
struct Run {
    name: [u8; 32],
    argument: u64,
    result: u64,
}

/// The loaded module.
struct Patched {
    device: File,
    places: Vec<(String, String, u64)>,
    /// Dropped last: a module with an open device stays.
    module: Option<Module>,
}

impl Patched {
    fn load() -> io::Result<Self> {
        let module = Module::load("dprobes_patched", "")?;
        Ok(Patched {
            module: Some(module),
            ..Self::already_loaded()?
        })
    }

    fn already_loaded() -> io::Result<Self> {
        let places = fs::read_to_string("/sys/module/dprobes_patched/parameters/places")?;
        let words = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let (kind, function, address) = (words.next()?, words.next()?, words.next_back()?);
            let address = u64::from_str_radix(address.trim_start_matches("0x"), 16).ok()?;
            Some((kind.to_owned(), function.to_owned(), address))
        };
        Ok(Patched {
            module: None,
            device: File::open("/dev/dprobes_patched")?,
            places: places.lines().filter_map(words).collect(),
        })
    }

    /// Where the one instruction of a kind is that a function has.
    fn place(&self, kind: &str, function: &str) -> u64 {
        let places = &self.places;
        let mut found = places.iter().filter(|place| place.0 == kind && place.1 == function);
        match (found.next(), found.next()) {
            (Some(place), None) => place.2,
            _ => panic!("not one {kind} in {function}: {places:x?}"),
        }
    }

    /// Where the one warning of a function is raised, and what a report shows of its code. Later kernels make a static call of one that has a text, and
    /// of that a `ud1`.
    fn warning(&self, function: &str) -> (u64, &'static str) {
        let is_call = |place: &&(String, String, u64)| place.0 == "call" && place.1 == function;
        match self.places.iter().find(is_call) {
            Some(call) => (call.2, "<67> 48 0f b9 3a"),
            None => (self.place("bug", function), "<0f> 0b"),
        }
    }

    fn run(&self, name: &str, argument: u64) -> io::Result<u64> {
        let mut run = Run {
            name: [0; 32],
            argument,
            result: 0,
        };
        run.name[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: the module reads the run and writes it back.
        unsafe { ioctl(&self.device, Updater::<0, _>::new(&mut run)) }?;
        Ok(run.result)
    }

    /// Leaves it loaded: a task has died inside.
    fn abandon(self) {
        self.module.into_iter().for_each(Module::leave);
    }
}

/// One hit for each pass, and nothing else.
fn exactly(last: &ProbeStatus, hits: u64) -> Outcome {
    let others = last.missed + last.faulted + last.late + last.lost + last.skipped + last.exceptions;
    ensure!((last.hits, others) == (hits, 0), "{hits} passes: {last:?}");
    Ok(())
}

/// What of a report is about the instruction: not what is left on the stack from before, nor what the process has in its registers.
fn facts(report: &str) -> Vec<String> {
    let of_kernel = report.lines().take_while(|line| !line.starts_with("RIP: 0033"));
    let mut facts = Vec::from_iter(of_kernel.filter(|line| !line.contains(" ? ")).map(without_pointers));
    facts.extend(
        report
            .lines()
            .filter(|line| line.contains("end trace"))
            .map(str::to_owned),
    );
    facts
}

/// Where the kernel has allocated what it works with, which is elsewhere each time or not, is nothing that is compared; where its code is, is.
fn without_pointers(line: &str) -> String {
    const DATA: std::ops::Range<u64> = 0xff00_0000_0000_0000..0xffff_ffff_8000_0000;
    let is_pointer =
        |word: &str| word.len() == 16 && u64::from_str_radix(word, 16).is_ok_and(|word| DATA.contains(&word));
    let words = line
        .split(' ')
        .map(|word| if is_pointer(word) { "POINTER" } else { word });
    Vec::from_iter(words).join(" ")
}

/// Do two reports agree with a third, wherever they agree with each other? The guest's kernel must not have stacks begin anywhere, or two can agree
/// by chance.
fn same(first: &str, second: &str, probed: &str) -> Outcome {
    let [first, second, probed] = [first, second, probed].map(facts);
    ensure!(first.len() > 10, "there is no report: {first:#?}");
    ensure!(first.len() == probed.len(), "bare: {first:#?}\nprobed: {probed:#?}");
    let mut compared = 0;
    for ((first, second), probed) in first.into_iter().zip(second).zip(probed) {
        // What was loaded from memory last may be anything.
        if first == second && !first.starts_with("CR2: ") {
            ensure!(first == probed, "bare:   {first}\nprobed: {probed}");
            compared += 1;
        }
    }
    ensure!(compared > 10, "{compared} lines of the report are always the same");
    Ok(())
}

fn warnings_are_what_they_were() -> Outcome {
    machine::pin(0);
    let _module = Module::dprobes()?;
    let (device, patched) = (Device::open()?, Patched::load()?);
    for name in ["warn", "warn_text"] {
        let report = |argument| kernel_log::during(|| patched.run(name, argument));
        let (place, code) = patched.warning(&format!("patched_do_{name}"));
        // The first one taints the kernel, which the others show.
        report(1)?.1?;
        let ((first, _), (second, result)) = (report(1)?, report(1)?);
        ensure!(result? == 2, "it does not go on behind the warning");
        device.insert(&program::at(1, &[place], RECORD))?;
        let (probed, result) = report(1)?;
        ensure!(result? == 2, "it does not go on behind the warning");
        ensure!(patched.run(name, 0)? == 1, "it did not warn");
        same(&first, &second, &probed)?;
        ensure!(
            probed.contains(&format!("RIP: 0010:patched_do_{name}+0x")) && probed.contains(code),
            "{probed}"
        );
        let records = device.records()?.len();
        let last = device.remove("kernel", 1)?[0];
        exactly(&last, 1)?;
        ensure!(records == 1 && last.resume == 4, "{records} records, {last:?}");
        same(&first, &second, &report(1)?.0)?;
    }
    // Each place warns once, and a probe neither uses that up nor gives it back. It is hit whether the kernel has anything to say or not.
    let place = patched.place("bug", "patched_do_warn_once");
    device.insert(&program::at(1, &[place], COUNT))?;
    let (first, _) = kernel_log::during(|| patched.run("warn_once", 1))?;
    let (second, _) = kernel_log::during(|| patched.run("warn_once", 1))?;
    exactly(&device.remove("kernel", 1)?[0], 2)?;
    let (third, _) = kernel_log::during(|| patched.run("warn_once", 1))?;
    ensure!(first.contains("WARNING: "), "{first}");
    ensure!(second.is_empty() && third.is_empty(), "{second}\n{third}");
    // Beside others that have a breakpoint at the function by which hits are noticed.
    let report_bug = machine::symbol("report_bug");
    device.insert(&program::at(1, &[report_bug, place], COUNT))?;
    device.insert(&program::at(2, &[report_bug], COUNT))?;
    patched.run("warn_once", 1)?;
    exactly(&device.remove("kernel", 2)?[0], 1)?;
    patched.run("warn_once", 1)?;
    let last = device.remove("kernel", 1)?;
    exactly(&last[0], 2)?;
    exactly(&last[1], 2)?;
    device.insert(&program::at(1, &[place], COUNT))?;
    patched.run("warn_once", 1)?;
    exactly(&device.remove("kernel", 1)?[0], 1)
}

/// A program may send the CPU elsewhere: nothing is said then.
fn a_warning_can_be_passed_over() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, patched) = (Device::open()?, Patched::load()?);
    for name in ["warn", "warn_text"] {
        let (place, code) = patched.warning(&format!("patched_do_{name}"));
        let length = code.split(' ').count();
        let code = format!("push r, rip\npush {length}\nadd\npop r, rip\nexit");
        device.insert(&program::at(1, &[place], &code))?;
        let (report, result) = kernel_log::during(|| patched.run(name, 7))?;
        // Before 7 a text is printed ahead of the instruction.
        ensure!(
            !report.contains("WARNING: ") && (report.is_empty() || name == "warn_text"),
            "{report}"
        );
        ensure!(result? == 8, "it does not go on behind the warning");
        exactly(&device.remove("kernel", 1)?[0], 1)?;
    }
    Ok(())
}

/// Set in the environment of the child that is to die.
const BUG: &str = "PATCHED_BUG";

/// What this program does when the test has started it to be killed in the kernel.
pub fn as_a_child() -> Option<ExitCode> {
    std::env::var_os(BUG)?;
    let patched = Patched::already_loaded().expect("the module is loaded");
    println!("survived: {:?}", patched.run("bug", 1));
    Some(ExitCode::SUCCESS)
}

fn a_bug_is_what_it_was() -> Outcome {
    machine::pin(0);
    let module = Module::dprobes()?;
    let (device, patched) = (Device::open()?, Patched::load()?);
    let report = || -> Result<_, libtest_mimic::Failed> {
        let run = || Command::new("/proc/self/exe").env(BUG, "1").status();
        let (report, status) = kernel_log::during(run)?;
        let status = status?;
        ensure!(status.signal().is_some(), "the child ended with {status}");
        Ok((report, status.signal()))
    };
    let ((first, bare), (second, _)) = (report()?, report()?);
    let place = patched.place("bug", "patched_do_bug");
    device.insert(&program::at(1, &[place], RECORD))?;
    let (probed, signal) = report()?;
    let records = device.records()?.len();
    let last = device.remove("kernel", 1)?[0];
    // The process's number and what it has in its registers are not the same, nor is how often the kernel has died.
    same(&first, &second, &probed)?;
    for fact in ["kernel BUG at ", "RIP: 0010:patched_do_bug+0x", "<0f> 0b"] {
        let line = |report: &str| report.lines().find(|line| line.contains(fact)).map(str::to_owned);
        ensure!(
            line(&first).is_some() && line(&first) == line(&probed),
            "bare:\n{first}\nprobed:\n{probed}"
        );
    }
    ensure!(signal == bare, "{signal:?} instead of {bare:?}");
    ensure!(!probed.contains("is probed"), "there is no breakpoint:\n{probed}");
    exactly(&last, 1)?;
    ensure!(records == 1, "{records} records");
    drop(device);
    module.unload()?;
    // The tasks that died were in it.
    patched.abandon();
    Ok(())
}

/// What a function gives, by what it was set to: the kernel's patch is seen at once, probed or not, and stays when the probe goes.
fn rewritten_while_probed() -> Outcome {
    let _module = Module::dprobes()?;
    let (device, patched) = (Device::open()?, Patched::load()?);
    let cases: [(&str, &str, &str, u64, [u64; 2]); 5] = [
        ("branch", "branch", "set_branch", 5, [0, 5]),
        ("call", "call", "set_call", 5, [60, 70]),
        ("call", "tail", "set_call", 5, [6, 7]),
        ("call", "maybe", "set_maybe", 5, [0, 5]),
        ("call", "zero", "set_zero", 5, [0, 70]),
    ];
    for (kind, name, set, argument, results) in cases {
        let place = patched.place(kind, &format!("patched_do_{name}"));
        let passes = if kind == "branch" { argument } else { 1 };
        let run = |state: usize| -> Outcome {
            let result = patched.run(name, argument)?;
            ensure!(result == results[state], "{name}, set to {state}: {result}");
            Ok(())
        };
        let set = |state: usize| patched.run(set, state as u64);
        for start in [0, 1] {
            for end in [0, 1] {
                set(start)?;
                device.insert(&program::at(1, &[place], RECORD))?;
                run(start)?;
                set(1 - start)?;
                run(1 - start)?;
                set(start)?;
                run(start)?;
                set(end)?;
                run(end)?;
                let last = device.remove("kernel", 1)?[0];
                exactly(&last, 4 * passes)?;
                ensure!(
                    device.records()?.len() as u64 == 4 * passes,
                    "not one record for each pass"
                );
                run(end)?;
                // The kernel finds what it expects, and so does the next probe.
                set(1 - end)?;
                run(1 - end)?;
                device.insert(&program::at(1, &[place], COUNT))?;
                run(1 - end)?;
                exactly(&device.remove("kernel", 1)?[0], passes)?;
            }
        }
        // The last hit was long ago, and the breakpoint is out, while the program is still there: the kernel does it alone.
        device.insert(&program::with(1, &[place], "max_hits = 1", COUNT))?;
        set(0)?;
        patched.run(name, argument)?;
        for state in [1, 0, 1] {
            thread::sleep(Duration::from_millis(50));
            set(state)?;
            run(state)?;
        }
        device.insert(&program::at(2, &[place], COUNT))?;
        run(1)?;
        set(0)?;
        run(0)?;
        exactly(&device.remove("kernel", 2)?[0], 2 * passes)?;
        device.remove("kernel", 1)?;
        run(0)?;
    }
    Ok(())
}

/// Toggled on one CPU, passed on both, inserted and removed: not one pass is missed while there is a probe.
fn every_pass_is_counted() -> Outcome {
    const ROUNDS: u64 = 100;
    let _module = Module::dprobes()?;
    let (device, patched) = (Device::open()?, Patched::load()?);
    let places = [
        patched.place("branch", "patched_do_branch"),
        patched.place("call", "patched_do_call"),
    ];
    let working = AtomicBool::new(true);
    let (toggles, inserted) = thread::scope(|scope| -> Result<(u64, u64), libtest_mimic::Failed> {
        let toggler = scope.spawn(|| -> io::Result<u64> {
            let mut toggles = 0;
            while working.load(Ordering::Relaxed) {
                for name in ["set_branch", "set_call", "set_maybe"] {
                    patched.run(name, toggles % 2)?;
                }
                toggles += 1;
            }
            Ok(toggles)
        });
        // Passes that nobody counts, while the probes come and go.
        let passer = scope.spawn(|| -> io::Result<u64> {
            let mut bad = 0;
            while working.load(Ordering::Relaxed) {
                patched.run("branch", 200)?;
                bad += u64::from(!matches!(patched.run("call", 5)?, 60 | 70));
            }
            Ok(bad)
        });
        let mut inserted = 0;
        let result = (|| -> Outcome {
            for _ in 0..ROUNDS {
                device.insert(&program::at(1, &places, COUNT))?;
                inserted += 1;
                patched.run("branch", 100)?;
                let last = device.remove("kernel", 1)?;
                ensure!(last[0].hits >= 100, "{last:?}");
            }
            Ok(())
        })();
        working.store(false, Ordering::Relaxed);
        let bad = passer.join().expect("a passer does not panic")?;
        let toggles = toggler.join().expect("a toggler does not panic")?;
        result?;
        ensure!(bad == 0, "{bad} calls went nowhere");
        Ok((toggles, inserted))
    })?;
    println!("    inserted {inserted} times, toggled {toggles} times");
    ensure!(toggles > 20, "toggled {toggles} times only");
    // The probe stays, and every pass is its hit.
    device.insert(&program::at(1, &places[..1], COUNT))?;
    let before = patched.run("passed", 0)?;
    let working = AtomicBool::new(true);
    let toggles = thread::scope(|scope| -> Result<u64, libtest_mimic::Failed> {
        let toggler = scope.spawn(|| -> io::Result<u64> {
            let mut toggles = 0;
            while working.load(Ordering::Relaxed) {
                patched.run("set_branch", toggles % 2)?;
                toggles += 1;
            }
            Ok(toggles)
        });
        let passers = [(); 2].map(|()| {
            scope.spawn(|| -> io::Result<()> {
                for _ in 0..1000 {
                    patched.run("branch", 100)?;
                }
                Ok(())
            })
        });
        for passer in passers {
            passer.join().expect("a passer does not panic")?;
        }
        working.store(false, Ordering::Relaxed);
        Ok(toggler.join().expect("a toggler does not panic")?)
    })?;
    let passed = patched.run("passed", 0)? - before;
    let last = device.remove("kernel", 1)?[0];
    println!("    toggled {toggles} times in {passed} passes");
    ensure!(last.hits == passed && passed == 200_000, "{passed} passes, {last:?}");
    ensure!(toggles > 20, "toggled {toggles} times only");
    // Known, but used up: what is there is the kernel's alone.
    device.insert(&program::with(1, &places, "max_hits = 1", COUNT))?;
    patched.run("branch", 10)?;
    patched.run("call", 5)?;
    thread::sleep(Duration::from_millis(100));
    thread::scope(|scope| -> Outcome {
        let toggler = scope.spawn(|| -> io::Result<()> {
            for toggle in 0..60 {
                patched.run("set_call", toggle % 2)?;
                patched.run("set_branch", toggle % 2)?;
            }
            Ok(())
        });
        while !toggler.is_finished() {
            let result = patched.run("call", 5)?;
            ensure!(matches!(result, 60 | 70), "a call gave {result}");
            patched.run("branch", 200)?;
        }
        Ok(toggler.join().expect("a toggler does not panic")?)
    })?;
    for probe in device.remove("kernel", 1)? {
        ensure!(probe.hits == 1, "{probe:?}");
    }
    for (state, taken) in [(0, 0), (1, 100), (0, 0)] {
        patched.run("set_branch", state)?;
        ensure!(patched.run("branch", 100)? == taken, "set to {state}");
    }
    Ok(())
}

/// The kernel's own: every jump label and static call of busy functions, while tracepoints, schedstats and the preemption model are switched, and modules
/// with such places of their own come and go.
fn the_kernels_own() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let symbols = survey::symbols::Symbols::read()?;
    let kcore = survey::kcore::Kcore::open()?;
    let tables = survey::tables::read(&symbols, &kcore)?;
    let text = symbols.between("_stext", "_etext").ok_or("no _stext")?;
    let functions = [
        "__schedule",
        "try_to_wake_up",
        "ttwu_do_wakeup",
        "update_curr",
        "enqueue_task_fair",
        "dequeue_task_fair",
        "vfs_read",
        "ksys_read",
        "do_sys_openat2",
        "exit_to_user_mode_prepare",
        "syscall_trace_enter",
        "copy_process",
        "do_exit",
        "kmem_cache_alloc",
        "kmem_cache_free",
        "__alloc_pages",
        "mutex_lock",
        "down_read",
        "do_user_addr_fault",
        "exc_page_fault",
        "scheduler_tick",
        "hrtimer_interrupt",
        "netif_receive_skb_list_internal",
        "sock_sendmsg",
    ];
    let mut wanted = Vec::new();
    for function in symbols
        .functions(&text)
        .filter(|function| functions.contains(&&*function.name))
    {
        for table in &tables {
            if [survey::tables::JUMP_LABELS, survey::tables::STATIC_CALLS].contains(&table.name) {
                wanted.extend(table.addresses.range(function.range.clone()));
            }
        }
    }
    let places = survey::ask::Module::open()?.accepted(&wanted)?;
    ensure!(
        places.len() > 30 && places.len() * 10 > wanted.len() * 9,
        "{} of {}",
        places.len(),
        wanted.len()
    );
    let trace = "/sys/kernel/tracing";
    if !fs::exists(format!("{trace}/events"))? {
        let status = Command::new("/bin/busybox")
            .args(["mount", "-t", "tracefs", "none", trace])
            .status()?;
        ensure!(status.success(), "tracefs cannot be mounted");
    }
    let preempt = "/sys/kernel/debug/sched/preempt";
    // 7 has other models.
    let other = match fs::read_to_string(preempt) {
        Ok(models) if !models.contains("voluntary") => "lazy",
        _ => "voluntary",
    };
    let switches: &[(&str, [&str; 2])] = &[
        ("/sys/kernel/tracing/events/sched/enable", ["1", "0"]),
        ("/sys/kernel/tracing/events/kmem/enable", ["1", "0"]),
        ("/sys/kernel/tracing/events/exceptions/enable", ["1", "0"]),
        ("/proc/sys/kernel/sched_schedstats", ["1", "0"]),
        ("/proc/sys/kernel/task_delayacct", ["1", "0"]),
        (preempt, ["full", other]),
    ];
    let switch = |state: usize| -> Outcome {
        for (file, values) in switches.iter().filter(|(file, _)| fs::exists(file).unwrap_or(false)) {
            fs::write(file, values[state]).map_err(|error| format!("{file}: {error}"))?;
        }
        Ok(())
    };
    for round in 0..3 {
        switch(round % 2)?;
        device.insert(&program::at(1, &places, COUNT))?;
        let result = thread::scope(|scope| -> Outcome {
            let worker = scope
                .spawn(|| sweep::workload("/tmp/patched").map_err(|error| error.message().unwrap_or("").to_owned()));
            for time in 0..4 {
                switch((round + time) % 2)?;
                drop(Patched::load()?);
            }
            Ok(worker.join().expect("a worker does not panic")?)
        });
        let last = device.remove("kernel", 1)?;
        result?;
        let hit = last.iter().filter(|probe| probe.hits > 0).count();
        println!("    {} places, {hit} of them hit", places.len());
        ensure!(hit * 4 > places.len(), "{hit} of {} were hit", places.len());
        sweep::workload("/tmp/patched")?;
    }
    switch(0)?;
    switch(1)?;
    sweep::workload("/tmp/patched")
}

/// The sites of hooks are jump labels to everybody, but it is gkhi that rewrites them.
fn hooks_are_left_alone() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let (_gkhi, _hooked) = (Module::load("gkhi", "")?, Module::load("sample_queue", "")?);
    let list = fs::read_to_string("/sys/kernel/debug/gkhi/list")?;
    // site HOOK FUNCTION+0xOFFSET/0xSIZE [MODULE] nop
    let places = list.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("site ")?.split_once(' ')?.1.split_once("+0x")?;
        let offset = u64::from_str_radix(rest.split_once('/')?.0, 16).ok()?;
        Some(machine::symbol(name) + offset)
    });
    let places = Vec::from_iter(places);
    ensure!(places.len() > 2, "{list}");
    for place in places {
        let refused = device
            .insert(&program::at(1, &[place], COUNT))
            .err()
            .ok_or("a hook's site is accepted")?;
        let why = Prohibited::from_code(refused.reply.detail as i32);
        ensure!(
            refused.reason() == Reason::Prohibited && why == Some(Prohibited::JumpLabel),
            "{refused:?}"
        );
    }
    Ok(())
}

/// The text goes with the probe on it, and the kernel rewrites what comes to the same place anew.
fn unloaded_while_probed() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    for round in 0..4 {
        let patched = Patched::load()?;
        let places = ["branch", "call", "tail", "maybe", "zero"].map(|name| {
            let kind = if name == "branch" { name } else { "call" };
            patched.place(kind, &format!("patched_do_{name}"))
        });
        device.insert(&program::at(1, &places, COUNT))?;
        patched.run("set_branch", round % 2)?;
        patched.run("set_call", 1)?;
        ensure!(patched.run("branch", 3)? == 3 * (round % 2), "round {round}");
        ensure!(patched.run("tail", 3)? == 5, "round {round}");
        drop(patched);
        let last = device.remove("kernel", 1)?;
        exactly(&last[0], 3)?;
        exactly(&last[2], 1)?;
    }
    Ok(())
}
