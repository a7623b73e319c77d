//! `dprobes query`.

use crate::args::{Global, Query};
use crate::device::Device;
use crate::error::Error;
use crate::output;
use crate::render::escape::Charset;
use crate::render::json;
use crate::render::status::{self, When};

/// Shows every probe.
pub fn run(args: &Query, global: &Global) -> Result<(), Error> {
    let probes = Device::open(&global.device)?.query()?;
    if args.json {
        return status::sorted(&probes)
            .into_iter()
            .try_for_each(|probe| output::print(&json::probe(probe, When::Now)));
    }
    if probes.is_empty() {
        output::tell("no probes are inserted");
        return Ok(());
    }
    output::print(&(status::table(&probes, When::Now, Charset::from_env()) + "\n"))
}
