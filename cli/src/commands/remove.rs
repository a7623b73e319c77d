//! `dprobes remove`.

use dprobes::wire::ProbeStatus;

use super::maps;
use crate::args::{Global, Remove};
use crate::device::{Device, Which};
use crate::error::Error;
use crate::output;
use crate::refusal::{self, Request};
use crate::render::address::Addresses;
use crate::render::escape::{Charset, trim};
use crate::render::json;
use crate::render::status::{self, When};
use crate::report::Report;

/// Removes a program, or probes of it, and shows final counts; or removes all.
pub fn run(args: &Remove, global: &Global) -> Result<(), Error> {
    let device = Device::open(&global.device)?;
    let Some(major) = args.major else {
        return remove_all(args, &device);
    };
    let module = &args.module;
    let which = match (args.minor, args.group, args.kind, &args.at) {
        (Some(minor), ..) => Some(Which::Minor(minor)),
        (_, Some(group), ..) => Some(Which::Group(group)),
        (_, _, Some(kind), _) => Some(Which::Type(kind)),
        (.., Some(at)) => Some(Which::Minor(minor_at(&device, major, module, at)?)),
        _ => None,
    };
    match which {
        Some(which) => take_out(args, &device, major, which),
        None => remove(args, &device, major, module),
    }
}

/// Removes everything; with the final counts of each program, if a program is to read them.
fn remove_all(args: &Remove, device: &Device) -> Result<(), Error> {
    if args.json && !args.now {
        let mut programs: Vec<_> = device
            .query()?
            .iter()
            .map(|probe| (probe.module, probe.major))
            .collect();
        programs.sort_unstable();
        programs.dedup();
        for (module, major) in programs {
            remove(args, device, major, &String::from_utf8_lossy(trim(&module)))?;
        }
    }
    device
        .remove_all(args.now)
        .map_err(|error| refusal::error(error, Request::RemoveAll))
}

/// The minor code of the probe at a place, as a query shows it.
fn minor_at(device: &Device, major: u16, module: &str, at: &str) -> Result<u16, Error> {
    let probes = device.query()?;
    let address = at
        .strip_prefix("0x")
        .and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let is_there = |probe: &&ProbeStatus| trim(&probe.label) == at.as_bytes() || address == Some(probe.address);
    let ours = || probes.iter().filter(|probe| status::is_of(probe, module, major));
    let mut found = ours().filter(is_there).map(|probe| probe.minor);
    match (found.next(), found.next()) {
        (Some(minor), None) => Ok(minor),
        (Some(_), Some(_)) => Err(Error::Refused(Box::new(
            Report::new(format!("program {major} for {module} has several probes at {at}"))
                .help("say which with --minor; `dprobes query` shows them"),
        ))),
        (None, _) => Err(Error::Refused(Box::new(
            Report::new(format!("program {major} for {module} has no probe at {at}"))
                .help("`dprobes query` shows the label and the address of each"),
        ))),
    }
}

/// Takes probes of a program out, and shows what they have counted.
fn take_out(args: &Remove, device: &Device, major: u16, which: Which) -> Result<(), Error> {
    let module = &args.module;
    device
        .disarm(major, module, which)
        .map_err(|error| refusal::error(error, Request::TakeOut { major, module, which }))?;
    let is_meant = |probe: &ProbeStatus| match which {
        Which::All => true,
        Which::Minor(minor) => probe.minor == minor,
        Which::Group(group) => probe.group == group,
        Which::Type(kind) => probe.type_ == kind,
    };
    let mut probes = device.query()?;
    probes.retain(|probe| status::is_of(probe, module, major) && is_meant(probe));
    if args.json {
        return status::sorted(&probes)
            .into_iter()
            .try_for_each(|probe| output::print(&json::probe(probe, When::Now)));
    }
    output::print(&(status::table(&probes, When::Now, Charset::from_env()) + "\n"))
}

/// Removes a program and shows its final counts.
fn remove(args: &Remove, device: &Device, major: u16, module: &str) -> Result<(), Error> {
    // A program has the same probes as long as it is inserted.
    let ours = |probes: &[_]| {
        probes
            .iter()
            .filter(|probe| status::is_of(probe, module, major))
            .count()
    };
    let capacity = ours(&device.query()?);
    let explain = |error| refusal::error(error, Request::Remove { major, module });
    let mut statuses = device.maps()?;
    statuses.retain(|map| map.major == major && maps::is_cut_from(&map.module, module));
    if !statuses.is_empty() {
        // What they have does not change after this.
        device.disarm(major, module, Which::All).map_err(explain)?;
    }
    let contents = maps::read(device, &statuses)?;
    let last = device.remove(major, module, capacity).map_err(explain)?;
    let style = maps::Style {
        json: args.json,
        names: false,
        addresses: &Addresses::choose(None, !statuses.is_empty())?,
    };
    if args.json {
        status::sorted(&last)
            .into_iter()
            .try_for_each(|probe| output::print(&json::probe(probe, When::AtRemoval)))?;
        return maps::show(&contents, style);
    }
    let between = if contents.is_empty() { "" } else { "\n" };
    let table = status::table(&last, When::AtRemoval, Charset::from_env());
    output::print(&format!("{table}\n{between}"))?;
    maps::show(&contents, style)
}
