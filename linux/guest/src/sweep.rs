//! A probe on every instruction of busy functions, all at once, in the worst places: the scheduler, page faults, timer interrupts.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::process::Command;
use std::thread;

use dprobes::host::Prohibited;
use dprobes::wire::Reason;

use crate::device::Device;
use crate::machine::{Module, find_symbol};
use crate::{Outcome, ensure, program};

pub const TESTS: &crate::Tests = &[(
    "every_instruction_of_busy_functions",
    every_instruction_of_busy_functions,
)];

const FUNCTIONS: &[&str] = &[
    "do_sys_openat2",
    "path_openat",
    "link_path_walk",
    "vfs_read",
    "vfs_write",
    "pipe_read",
    "pipe_write",
    "handle_mm_fault",
    "do_user_addr_fault",
    "__alloc_pages",
    "get_page_from_freelist",
    "kmem_cache_alloc",
    "kfree",
    "copy_process",
    "do_exit",
    "__schedule",
    "try_to_wake_up",
    "enqueue_task_fair",
    "update_curr",
    "scheduler_tick",
    "hrtimer_interrupt",
    "tick_sched_timer",
    "irq_work_run_list",
    "rcu_sched_clock_irq",
    "_raw_spin_lock",
    "_raw_spin_unlock_irqrestore",
    "mutex_lock",
    "memcpy_orig",
    "strncpy_from_user",
    "ktime_get",
    "native_sched_clock",
    "smp_call_function_many_cond",
];

/// Runs all of them: a file of this name, pipes, threads, processes, page faults.
pub fn workload(path: &str) -> Outcome {
    for _ in 0..5 {
        fs::write(path, vec![7; 100_000])?;
        ensure!(fs::read(path)? == vec![7; 100_000], "a file changed");
        let (mut reader, mut writer) = std::io::pipe()?;
        let sum: u64 = thread::scope(|scope| {
            scope.spawn(move || {
                (0..200u64).for_each(|i| writer.write_all(&i.to_le_bytes()).expect("a pipe takes bytes"))
            });
            let mut sum = 0;
            let mut word = [0; 8];
            while reader.read_exact(&mut word).is_ok() {
                sum += u64::from_le_bytes(word);
            }
            sum
        });
        ensure!(sum == 199 * 200 / 2, "a pipe changed what went through it: {sum}");
        let output = Command::new("/bin/busybox").args(["expr", "20", "+", "22"]).output()?;
        ensure!(output.stdout == b"42\n", "{output:?}");
        let mut memory = vec![0u8; 4 << 20];
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        ensure!(
            memory.iter().map(|byte| u64::from(*byte)).sum::<u64>() == 1024,
            "memory changed"
        );
    }
    Ok(())
}

/// Bytes up to the next symbol, at most so many.
fn size(start: u64, symbols: &[u64]) -> u64 {
    let next = symbols.partition_point(|address| *address <= start);
    symbols.get(next).map_or(0, |next| (next - start).min(4096))
}

fn every_instruction_of_busy_functions() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let list = fs::read_to_string("/proc/kallsyms")?;
    let mut symbols = Vec::from_iter(
        list.lines()
            .filter_map(|line| u64::from_str_radix(line.split(' ').next()?, 16).ok()),
    );
    symbols.sort_unstable();
    workload("/tmp/workload")?;
    let (mut armed, mut fired, mut hits, mut reasons) = (0, 0, 0, BTreeMap::<String, u32>::new());
    for name in FUNCTIONS {
        let Some(start) = find_symbol(name) else {
            println!("    this kernel has no {name}");
            continue;
        };
        let mut major = 0;
        for address in start..start + size(start, &symbols) {
            match device.insert(&program::at(major + 1, &[address], program::COUNT)) {
                Ok(()) => major += 1,
                Err(refused) => {
                    let reason = match refused.reason() {
                        Reason::Prohibited => format!("{:?}", Prohibited::from_code(refused.reply.detail as i32)),
                        Reason::Instruction => format!(
                            "Instruction {} {:02x?}",
                            refused.reply.detail,
                            &refused.reply.facts[1].to_le_bytes()[..3]
                        ),
                        reason => format!("{reason:?}"),
                    };
                    *reasons.entry(reason).or_default() += 1;
                }
            }
        }
        let result = workload("/tmp/workload");
        let probes = device.query()?;
        device.remove_all()?;
        result.map_err(|error| format!("{name}: {}", error.message().unwrap_or("")))?;
        armed += probes.len();
        fired += probes.iter().filter(|probe| probe.hits + probe.missed > 0).count();
        hits += probes.iter().map(|probe| probe.hits + probe.missed).sum::<u64>();
        println!(
            "    {name}: {} armed, {} fired",
            probes.len(),
            probes.iter().filter(|probe| probe.hits > 0).count()
        );
    }
    println!("    {armed} probes, {fired} of them fired, {hits} hits");
    println!("    refused: {reasons:?}");
    ensure!(armed > 2000 && fired > armed / 4, "{armed} armed, {fired} fired");
    Ok(())
}
