//! `dprobes vars`.

use std::ops::RangeInclusive;

use dprobes::wire::{VARS_ALL, VARS_GLOBAL, VARS_LOCAL, VarStatus, VarsRequest, label};

use super::maps::is_cut_from;
use crate::args::{Global, Vars};
use crate::device::{Device, VARS_MAX};
use crate::error::Error;
use crate::output;
use crate::render::escape::Charset;
use crate::render::vars;
use crate::report::Report;

/// Shows variables, or resets them.
pub fn run(args: &Vars, global: &Global) -> Result<(), Error> {
    if args.reset && !args.global && args.major.is_none() {
        return Err(refuse(Report::new("--reset needs to know of which program").help(
            "name its module and its major code, as in `dprobes vars kernel 1 --reset`, or say --global",
        )));
    }
    let device = Device::open(&global.device)?;
    let there = listed(&device, args)?;
    let chosen = choose(&there, &args.vars)?;
    let shown = if args.reset {
        reset(&device, args, &chosen)?
    } else {
        chosen
    };
    if args.json {
        return shown.iter().try_for_each(|var| output::print(&vars::line(var)));
    }
    if shown.is_empty() {
        output::tell("there are no variables");
        return Ok(());
    }
    output::print(&(vars::table(&shown, Charset::from_env()) + "\n"))
}

/// All variables of the programs that were named.
fn listed(device: &Device, args: &Vars) -> Result<Vec<VarStatus>, Error> {
    let all = device.vars(&request(args), 256)?;
    let Some(mut all) = all else {
        return Err(no_program(args));
    };
    if let Some(module) = &args.module {
        all.retain(|var| var.scope == VARS_LOCAL && is_cut_from(&var.module, module));
    }
    Ok(all)
}

fn request(args: &Vars) -> VarsRequest {
    let (scope, major) = match (args.global, args.major) {
        (true, _) => (VARS_GLOBAL, 0),
        (false, Some(major)) => (VARS_LOCAL, major),
        (false, None) => (VARS_ALL, 0),
    };
    VarsRequest {
        scope,
        major,
        module: label(args.module.as_deref().unwrap_or("").as_bytes()),
        ..VarsRequest::default()
    }
}

/// Those that were asked for by name or by place, in the order in which they were asked for.
fn choose(there: &[VarStatus], wanted: &[String]) -> Result<Vec<VarStatus>, Error> {
    if wanted.is_empty() {
        return Ok(there.to_vec());
    }
    let mut chosen = Vec::new();
    for which in wanted {
        let before = chosen.len();
        let places = places(which);
        chosen.extend(there.iter().filter(|var| match &places {
            Some(places) => places.contains(&var.index),
            None => is_cut_from(&var.name, which),
        }));
        if chosen.len() == before {
            return Err(refuse(Report::new(format!("there is no variable {which}")).help(
                "`dprobes vars` lists those that there are; variables that a program allocates are not among them",
            )));
        }
    }
    Ok(chosen)
}

/// `3` or `3-7`.
fn places(text: &str) -> Option<RangeInclusive<u32>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

/// Resets variables, and gives them as they were at that moment.
fn reset(device: &Device, args: &Vars, chosen: &[VarStatus]) -> Result<Vec<VarStatus>, Error> {
    let request = VarsRequest {
        reset: 1,
        ..request(args)
    };
    let whole = args.vars.is_empty();
    if whole {
        return device.vars(&request, VARS_MAX)?.ok_or_else(|| no_program(args));
    }
    let mut before = Vec::new();
    for var in chosen {
        let one = VarsRequest {
            first: var.index,
            number: 1,
            ..request
        };
        before.extend(device.vars(&one, 1)?.ok_or_else(|| no_program(args))?);
    }
    Ok(before)
}

fn no_program(args: &Vars) -> Error {
    let (module, major) = (args.module.as_deref().unwrap_or(""), args.major.unwrap_or(0));
    refuse(
        Report::new(format!("no program with major code {major} is inserted for {module}"))
            .help("`dprobes query` shows what is inserted"),
    )
}

fn refuse(report: Report) -> Error {
    Error::Refused(Box::new(report))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn var(index: u32, name: &[u8]) -> VarStatus {
        VarStatus {
            index,
            name: label(name),
            ..VarStatus::default()
        }
    }

    #[test]
    fn variables_are_chosen_by_name_and_by_place() {
        let there = [var(0, b"opens"), var(1, b"fails"), var(2, b""), var(3, b"opens2")];
        let chosen = |wanted: &[&str]| {
            let wanted: Vec<_> = wanted.iter().map(|text| (*text).to_owned()).collect();
            choose(&there, &wanted).map(|all| all.iter().map(|var| var.index).collect::<Vec<_>>())
        };
        assert_eq!(chosen(&[]).unwrap(), [0, 1, 2, 3]);
        assert_eq!(chosen(&["opens"]).unwrap(), [0]);
        assert_eq!(chosen(&["2", "opens2", "0-1"]).unwrap(), [2, 3, 0, 1]);
        for none in ["4", "4-9", "open", "2-1", "-"] {
            assert!(chosen(&[none]).is_err(), "{none}");
        }
    }
}
