//! `dprobes remove`.

use super::maps;
use crate::args::{Global, Remove};
use crate::device::Device;
use crate::error::Error;
use crate::output;
use crate::refusal::{self, Request};
use crate::render::address::Addresses;
use crate::render::escape::Charset;
use crate::render::json;
use crate::render::status::{self, When};

/// Removes a program and shows its final counts, or removes all.
pub fn run(args: &Remove, global: &Global) -> Result<(), Error> {
    let device = Device::open(&global.device)?;
    let Some(major) = args.major else {
        return device
            .remove_all(args.now)
            .map_err(|error| refusal::error(error, Request::RemoveAll));
    };
    let module = &args.module;
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
        device.disarm(major, module).map_err(explain)?;
    }
    let contents = maps::read(&device, &statuses)?;
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
