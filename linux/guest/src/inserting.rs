//! What inserting many probes costs, beside `register_kprobes` at the same addresses in the same boot: `linux-tests measure-insert
//! PROBES`, for `./x bench insert`.
//!
//! The modules must be loaded. A line of the report is `@insert PROBES NANOSECONDS NANOSECONDS NAME`: to insert, and to remove.
//! Kprobes may be fewer than were asked for: registering one looks at the whole function, and for each of its instructions at those there are.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Instant;

use crate::batch::{addresses, count_at};
use crate::device::Device;
use crate::{Outcome, ensure};

const KPROBES: &str = "/dev/many_kprobes";
const PARAMETERS: &str = "/sys/module/many_kprobes/parameters";

/// How often each is measured; the best counts.
const TIMES: u32 = 3;

/// Measures, if that is what the arguments ask for.
pub fn as_a_benchmark() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != "measure-insert" {
        return None;
    }
    let probes = arguments.next().and_then(|probes| probes.parse().ok());
    let probes = probes.expect("measure-insert is followed by a number of probes");
    Some(match measure(probes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.message().unwrap_or_default());
            ExitCode::FAILURE
        }
    })
}

fn measure(probes: usize) -> Outcome {
    let device = Device::open()?;
    // Some more than wanted, because kprobes refuse some.
    let ours = addresses(probes + probes / 20)?;
    let mut both = accepted_by_kprobes(&ours)?;
    println!("@both {} {}", ours.len(), both.len());
    both.truncate(probes);
    let object = count_at(1, both.iter().copied());
    let (mut inserting, mut removing) = (u128::MAX, u128::MAX);
    for _ in 0..TIMES {
        let begun = Instant::now();
        device.insert(&object)?;
        inserting = inserting.min(begun.elapsed().as_nanos());
        let begun = Instant::now();
        device.remove("kernel", 1)?;
        removing = removing.min(begun.elapsed().as_nanos());
    }
    println!("@insert {} {inserting} {removing} dprobes", both.len());
    fs::write(format!("{PARAMETERS}/run"), both.len().to_string())?;
    let report = fs::read_to_string(format!("{PARAMETERS}/report"))?;
    println!("@insert {} kprobes", report.trim());
    Ok(())
}

fn accepted_by_kprobes(addresses: &[u64]) -> Result<Vec<u64>, libtest_mimic::Failed> {
    let mut file = OpenOptions::new().read(true).write(true).open(KPROBES)?;
    let bytes = Vec::from_iter(addresses.iter().flat_map(|address| address.to_le_bytes()));
    ensure!(file.write(&bytes)? == bytes.len(), "not all addresses were taken");
    let mut accepted = Vec::new();
    OpenOptions::new()
        .read(true)
        .open(KPROBES)?
        .read_to_end(&mut accepted)?;
    let words = accepted
        .chunks_exact(8)
        .map(|word| word.try_into().expect("eight bytes"));
    Ok(words.map(u64::from_le_bytes).collect())
}
