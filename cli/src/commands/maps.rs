//! `dprobes maps`.

use dprobes::wire::MapStatus;
use rustix::termios::tcgetwinsize;

use crate::args::{Global, Maps};
use crate::device::Device;
use crate::error::Error;
use crate::map::{self, Map};
use crate::output;
use crate::render::address::Addresses;
use crate::render::escape::{Charset, trim};
use crate::render::maps::{self, Canvas};
use crate::report::Report;

/// Columns of a terminal that does not say how many it has, and of what is no terminal.
const WIDTH: usize = 80;

/// Shows maps.
pub fn run(args: &Maps, global: &Global) -> Result<(), Error> {
    let device = Device::open(&global.device)?;
    let mut all = device.maps()?;
    all.sort_by_key(|map| (map.module, map.major, map.index));
    let wanted = |map: &MapStatus| {
        args.module
            .as_deref()
            .is_none_or(|module| is_cut_from(&map.module, module))
            && args.major.is_none_or(|major| map.major == major)
            && args.name.as_deref().is_none_or(|name| is_cut_from(&map.name, name))
    };
    let chosen: Vec<_> = all.iter().filter(|map| wanted(map)).collect();
    if chosen.is_empty() && args.module.is_some() {
        return Err(none(args, &all));
    }
    if chosen.is_empty() && !args.json {
        output::tell("no maps are inserted");
    }
    let maps = read(&device, chosen)?;
    let style = Style {
        json: args.json,
        names: args.names,
        addresses: &Addresses::choose(args.kallsyms.as_ref(), true)?,
    };
    show(&maps, style)
}

/// The entries of maps, without those whose program has been removed meanwhile.
pub fn read<'m>(device: &Device, chosen: impl IntoIterator<Item = &'m MapStatus>) -> Result<Vec<Map>, Error> {
    let mut maps = Vec::new();
    for status in chosen {
        let spec = map::spec(status).map_err(|_| unknown(status.kind))?;
        if let Some((bytes, dropped)) = device.read_map(status)? {
            maps.push(Map {
                status: *status,
                spec,
                entries: map::entries(&spec, &bytes),
                dropped,
            });
        }
    }
    Ok(maps)
}

/// How maps are to be shown.
#[derive(Clone, Copy)]
pub struct Style<'a> {
    /// As JSON, one line for each?
    pub json: bool,
    /// Are the last two keys the name of a process?
    pub names: bool,
    pub addresses: &'a Addresses,
}

/// Prints maps.
pub fn show(maps: &[Map], style: Style<'_>) -> Result<(), Error> {
    for (nth, map) in maps.iter().enumerate() {
        if style.json {
            output::print(&maps::line(map, style.addresses))?;
            continue;
        }
        let canvas = Canvas {
            width: width(),
            charset: Charset::from_env(),
            addresses: style.addresses,
            names: style.names,
        };
        let between = if nth > 0 { "\n" } else { "" };
        output::print(&format!("{between}{}", maps::text(map, canvas)))?;
    }
    Ok(())
}

/// Is the zero-padded name this one? It is cut when it is longer than its place.
pub fn is_cut_from(padded: &[u8], name: &str) -> bool {
    let place = trim(padded);
    place == name.as_bytes() || place.len() == padded.len() && name.as_bytes().starts_with(place)
}

/// How wide the output may be.
fn width() -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = || {
        let size = tcgetwinsize(std::io::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
    };
    asked.or_else(terminal).unwrap_or(WIDTH)
}

fn none(args: &Maps, all: &[MapStatus]) -> Error {
    let mut wanted = match &args.name {
        Some(name) => format!("no map {name} is inserted"),
        None => "no map is inserted".to_owned(),
    };
    if let Some(major) = args.major {
        wanted += &format!(" by program {major}");
    }
    if let Some(module) = &args.module {
        wanted += &format!(" for {module}");
    }
    let report = Report::new(wanted);
    let there: Vec<String> = all
        .iter()
        .map(|map| {
            let text = |padded: &[u8]| String::from_utf8_lossy(trim(padded)).into_owned();
            format!("{} {} {}", text(&map.module), map.major, text(&map.name))
        })
        .collect();
    Error::Refused(Box::new(match there.as_slice() {
        [] => report.note("there are no maps at all; a program declares one with `map NAME = KIND`"),
        [..] => report.note(format!("there are: {}", there.join(", "))),
    }))
}

fn unknown(kind: u32) -> Error {
    let report = Report::new(format!(
        "the module has a map that this command does not understand (kind {kind})"
    ));
    Error::Refused(Box::new(report.help("use the command that was built with the module")))
}
