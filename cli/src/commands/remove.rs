//! `dprobes remove`.

use crate::args::{Global, Remove};
use crate::device::Device;
use crate::error::Error;
use crate::output;
use crate::refusal::{self, Request};
use crate::render::escape::Charset;
use crate::render::json;
use crate::render::status::{self, When};

/// Removes a program and shows its final counts, or removes all.
pub fn run(args: &Remove, global: &Global) -> Result<(), Error> {
    let device = Device::open(&global.device)?;
    let Some(major) = args.major else {
        return device
            .remove_all()
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
    let last = device
        .remove(major, module, capacity)
        .map_err(|error| refusal::error(error, Request::Remove { major, module }))?;
    if args.json {
        return status::sorted(&last)
            .into_iter()
            .try_for_each(|probe| output::print(&json::probe(probe, When::AtRemoval)));
    }
    output::print(&(status::table(&last, When::AtRemoval, Charset::from_env()) + "\n"))
}
