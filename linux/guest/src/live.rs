//! Probes on the entry of every function at once, and on every instruction of those that run most, under a real workload: nothing may be
//! different, nothing lost.
//!
//! `DPROBES_LIVE_FUNCTIONS` says on how many functions every instruction is probed, `DPROBES_LIVE_EVERY` that the entry of only one
//! function of so many is.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use dprobes::wire::ProbeStatus;
use survey::ask::Module as Asking;
use survey::symbols::{Function, Symbols};

use crate::device::Device;
use crate::machine::Module;
use crate::workload::{self, CALLS, Results};
use crate::{Outcome, batch, ensure};

pub const TESTS: &crate::Tests = &[(
    "every_function_and_every_instruction",
    every_function_and_every_instruction,
)];

/// How many functions have a probe on every instruction, unless the environment says otherwise.
const FUNCTIONS: usize = 200;

/// How many probes there are at most at a time in the second part.
const BATCH: usize = 6000;

fn every_function_and_every_instruction() -> Outcome {
    let _module = Module::dprobes()?;
    let device = Device::open()?;
    let asking = Asking::open()?;
    let symbols = Symbols::read()?;
    let text = symbols.between("_stext", "_etext").ok_or("no text")?;
    let functions = Vec::from_iter(symbols.functions(&text));

    // Once to get going: what is set up at the first time differs.
    workload::run()?;
    let expected = workload::run()?;
    for line in &expected {
        println!("    {line}");
    }
    let starts = functions.iter().map(|function| function.range.start);
    let starts = Vec::from_iter(starts.step_by(number("DPROBES_LIVE_EVERY", 1)));
    let places = accepted(&asking, &starts)?;
    println!(
        "    {} functions, {} of them can be probed at their entry",
        functions.len(),
        places.len()
    );
    let counted = entries(&device, &symbols, &functions, &places, &expected)?;
    speaking_calls(&device, &asking, &functions, &places, &expected)?;
    instructions(&device, &asking, &functions, counted, &expected)
}

/// All hits of a probe, whatever became of them.
fn all(status: &ProbeStatus) -> u64 {
    status.hits + status.skipped + status.suspended + status.missed + status.late
}

/// A number from the environment, at least 1.
fn number(variable: &str, otherwise: usize) -> usize {
    let number = std::env::var(variable).ok().and_then(|number| number.parse().ok());
    number.unwrap_or(otherwise).max(1)
}

fn insert(device: &Device, addresses: &[u64]) -> Outcome {
    device.insert(&batch::count_at(1, addresses.iter().copied()))?;
    Ok(())
}

/// Addresses where the module says that it would accept probes, in order, each once.
fn accepted(asking: &Asking, addresses: &[u64]) -> Result<Vec<u64>, libtest_mimic::Failed> {
    let mut places = asking.accepted(addresses)?;
    places.sort_unstable();
    places.dedup();
    Ok(places)
}

fn same(results: &Results, expected: &Results) -> Outcome {
    for (result, expected) in results.iter().zip(expected) {
        ensure!(result == expected, "without probes {expected}; with them {result}");
    }
    Ok(())
}

/// Processes and threads that were started, as the kernel counts them.
fn started() -> Result<u64, libtest_mimic::Failed> {
    let statistics = fs::read_to_string("/proc/stat")?;
    let count = statistics
        .lines()
        .find_map(|line| line.strip_prefix("processes ")?.trim().parse().ok());
    Ok(count.ok_or("/proc/stat does not say how many processes were started")?)
}

/// Returns the functions in the order of their hits, most first, as indices.
fn entries(
    device: &Device,
    symbols: &Symbols,
    functions: &[Function],
    places: &[u64],
    expected: &Results,
) -> Result<Vec<usize>, libtest_mimic::Failed> {
    let begun = Instant::now();
    insert(device, places)?;
    println!("    all inserted in {:.1} s", begun.elapsed().as_secs_f32());

    let of = |probes: &[ProbeStatus], name: &str| -> Result<u64, libtest_mimic::Failed> {
        let start = symbols.address(name).ok_or_else(|| format!("no {name}"))?;
        let index = probes.partition_point(|probe| probe.address < start);
        Ok(probes
            .get(index)
            .map(all)
            .ok_or_else(|| format!("no probe on {name}"))?)
    };
    let probes = |device: &Device| -> Result<Vec<ProbeStatus>, libtest_mimic::Failed> {
        let mut probes = device.query()?;
        probes.sort_by_key(|probe| probe.address);
        Ok(probes)
    };

    let (outer, inner) = (probes(device)?, started()?);
    let after = probes(device)?;
    let begun = Instant::now();
    let results = workload::run()?;
    let took = begun.elapsed().as_secs_f32();
    let before_end = probes(device)?;
    let (inner_end, outer_end) = (started()?, probes(device)?);
    same(&results, expected)?;

    // Counts that others make: nobody else calls getpriority(), and the kernel counts its processes.
    const CALLED: &str = "__x64_sys_getpriority";
    let calls = of(&before_end, CALLED)? - of(&after, CALLED)?;
    ensure!(calls == CALLS, "{CALLS} calls of getpriority(), {calls} hits");
    let forks = |begin: &[ProbeStatus], end: &[ProbeStatus]| -> Result<u64, libtest_mimic::Failed> {
        Ok(of(end, "wake_up_new_task")? - of(begin, "wake_up_new_task")?)
    };
    let (least, most) = (forks(&after, &before_end)?, forks(&outer, &outer_end)?);
    let by_kernel = inner_end - inner;
    ensure!(
        least <= by_kernel && by_kernel <= most,
        "the kernel counts {by_kernel} new processes, the probe {least} to {most}"
    );

    device.remove_all()?;
    let fired = outer_end.iter().filter(|probe| all(probe) > 0).count();
    let (hits, missed): (u64, u64) = outer_end.iter().fold((0, 0), |(hits, missed), probe| {
        (hits + probe.hits, missed + probe.missed)
    });
    println!(
        "    {} probes, {fired} fired, {hits} hits, {missed} missed inside others; the workload took {took:.1} s; {calls} of {CALLS} \
         calls of getpriority(), {least} of {by_kernel} new processes",
        outer_end.len()
    );
    ensure!(
        outer_end.len() == places.len(),
        "{} of {} probes are left",
        outer_end.len(),
        places.len()
    );
    ensure!(
        outer_end.iter().all(|probe| (probe.exceptions, probe.lost) == (0, 0)),
        "exceptions or lost records"
    );

    let mut counted = BTreeMap::new();
    for probe in &outer_end {
        let index = functions.partition_point(|function| function.range.end <= probe.address);
        *counted.entry(index).or_insert(0) += all(probe);
    }
    let mut order = Vec::from_iter(counted.into_iter().filter(|(_, count)| *count > 0));
    order.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Ok(Vec::from_iter(order.into_iter().map(|(index, _)| index)))
}

/// Every function counts, and every system call runs a program besides that makes the kernel do much for it: the unwinder, the clock, copies
/// of kernel and user memory, those that fail too. A hit inside such a hit is missed, and counted.
fn speaking_calls(
    device: &Device,
    asking: &Asking,
    functions: &[Function],
    places: &[u64],
    expected: &Results,
) -> Outcome {
    const SPEAKING: &str = "push 8; log kstack\npush 4; log ustack\nlog name\npush clock; log 1\n\
                            push 16; push r, rsp; log mrf\npush 16; push r, rdi; log str\npush 8; push 0x10; log mrf\nexit";
    let calls = functions
        .iter()
        .filter(|function| function.name.starts_with("__x64_sys_"));
    let calls = accepted(asking, &Vec::from_iter(calls.map(|function| function.range.start)))?;
    device.insert(&batch::run_at(2, SPEAKING, calls.iter().copied()))?;
    insert(device, places)?;
    let results = workload::run();
    let counting = device.remove("kernel", 1)?;
    let speaking = device.remove("kernel", 2)?;
    same(&results?, expected)?;
    let records = device.records()?;
    let records = records.iter().filter(|(header, _)| header.major == 2).count() as u64;
    let sum = |probes: &[ProbeStatus], count: fn(&ProbeStatus) -> u64| probes.iter().map(count).sum::<u64>();
    let (hits, lost) = (sum(&speaking, |probe| probe.hits), sum(&speaking, |probe| probe.lost));
    let missed = sum(&counting, |probe| probe.missed);
    println!(
        "    {} system calls with a program that does much: {hits} hits, {records} records, {lost} lost; {missed} hits missed inside them",
        calls.len()
    );
    ensure!(
        hits == records + lost,
        "{hits} hits, but {records} records and {lost} that were lost"
    );
    ensure!(
        (counting.len(), speaking.len()) == (places.len(), calls.len()),
        "{} and {} probes",
        counting.len(),
        speaking.len()
    );
    ensure!(
        hits > 1000 && missed > hits,
        "hardly anything that a hit runs through was probed"
    );
    Ok(())
}

/// Every instruction of the functions that are hit most, some functions at a time.
fn instructions(
    device: &Device,
    asking: &Asking,
    functions: &[Function],
    order: Vec<usize>,
    expected: &Results,
) -> Outcome {
    let wanted = number("DPROBES_LIVE_FUNCTIONS", FUNCTIONS);
    let mut hot = order.into_iter().take(wanted).map(|index| &functions[index]).peekable();
    let (mut probed, mut armed, mut fired, mut hits, mut missed) = (0, 0, 0, 0, 0);
    while hot.peek().is_some() {
        let mut places = Vec::new();
        let (mut first, mut last) = ("", "");
        while let Some(function) = hot.next_if(|_| places.len() < BATCH) {
            // Those inside an instruction are refused.
            places.extend(accepted(asking, &Vec::from_iter(function.range.clone()))?);
            probed += 1;
            last = &function.name;
            if first.is_empty() {
                first = last;
            }
        }
        places.sort_unstable();
        places.dedup();
        insert(device, &places)?;
        let result = workload::run();
        let probes = device.query()?;
        device.remove_all()?;
        let results = result.map_err(|error| format!("{first} to {last}: {error}"))?;
        same(&results, expected)?;
        let some = probes.iter().filter(|probe| all(probe) > 0).count();
        println!(
            "    {first} to {last}: {} instructions probed, {some} hit",
            probes.len()
        );
        armed += probes.len();
        fired += some;
        hits += probes.iter().map(|probe| probe.hits).sum::<u64>();
        missed += probes.iter().map(|probe| probe.missed).sum::<u64>();
        ensure!(
            probes.iter().all(|probe| (probe.exceptions, probe.lost) == (0, 0)),
            "exceptions or lost records"
        );
    }
    println!("    {probed} functions, {armed} probes, {fired} fired, {hits} hits, {missed} missed inside others");
    ensure!(probed == wanted, "{probed} functions have been hit, not {wanted}");
    ensure!(fired > armed / 4, "{armed} armed, {fired} fired");
    Ok(())
}
