//! Assembles the programs of the tests: tests/programs/*.rpn, a family that counts at several places, and one that watches.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

use dprobes::rpn::object::WatchKind;
use rpn_asm::{Assembled, Diagnostics, Options};

/// A port at which nothing is.
const WATCHED_PORT: u16 = 0xe8;

/// The longest function that is probed at every instruction.
const PLACES: usize = 64;

fn main() {
    let programs = Path::new("../programs");
    println!("cargo::rerun-if-changed={}", programs.display());
    let mut objects = Vec::new();
    for entry in fs::read_dir(programs).expect("tests/programs is there").flatten() {
        let path = entry.path();
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else {
            continue;
        };
        objects.push((
            name.to_owned(),
            good(rpn_asm::assemble_file(&path, &Options::default())),
        ));
    }
    for number in 0..MARKS {
        for (kind, (head, end)) in KINDS.into_iter().enumerate() {
            let name = format!("mark{number}_{kind}");
            let text = mark(110 + 10 * number + kind, head, end);
            objects.push((name.clone(), good(rpn_asm::assemble(&name, &text, &Options::default()))));
        }
    }
    for places in (1..=PLACES).chain(MANY) {
        let name = format!("every{places}");
        let text = every(places);
        objects.push((name.clone(), good(rpn_asm::assemble(&name, &text, &Options::default()))));
    }

    for kind in WatchKind::ALL {
        for len in kind.lengths() {
            let name = format!("watch_{}_{len}", kind.name());
            let text = watch(kind, *len);
            objects.push((name.clone(), good(rpn_asm::assemble(&name, &text, &Options::default()))));
        }
    }

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut table = String::new();
    for (name, assembled) in objects {
        let object = out.join(&name).with_extension("dpo");
        fs::write(&object, assembled.object).expect("OUT_DIR is writable");
        table += &format!("({name:?}, include_bytes!({object:?})),\n");
    }
    fs::write(out.join("programs.rs"), format!("&[\n{table}]\n")).expect("OUT_DIR is writable");
}

/// Of programs for a part of the whole kernel.
const MANY: [usize; 2] = [256, 1024];

/// How many sets of programs that mark there are: one for each place.
const MARKS: usize = 7;

/// What a program that marks has in its head, and how it ends.
const KINDS: [(&str, &str); 4] = [
    ("", "abort"),
    ("", "push r, rip\nlog 1\nexit"),
    ("max_hits = 40", "abort"),
    ("suspended = yes\ngroup = 1", "suspend 1\nabort"),
];

/// A program that lets the probed code know of each hit: r9 becomes 1.
fn mark(major: usize, head: &str, end: &str) -> String {
    format!(
        "name = \"kernel\"\nmodtype = kernel\nmajor = {major}\nvars = hits\noffset = place0\nminor = 1\n{head}\n\
         inc lv, hits\npush r, r9\npush 1\nadd\npop r, r9\n{end}\n"
    )
}

/// A program that does nothing but be hit, at `place0`, `place1`, ...
fn every(places: usize) -> String {
    let mut text = "name = \"kernel\"\nmodtype = kernel\nmajor = 100\n".to_owned();
    for place in 0..places {
        text += &format!("offset = place{place}\nminor = {place}\nabort\n");
    }
    text
}

/// A program that watches `place0`, or a port, and logs where it was hit, why, and with which stack pointer.
fn watch(kind: WatchKind, len: u8) -> String {
    let place = match kind {
        WatchKind::Io => format!("address = {WATCHED_PORT:#x}"),
        _ => "offset = place0".to_owned(),
    };
    format!(
        "name = \"kernel\"; modtype = kernel; major = 20\n{place}; watch = {} {len}; minor = 1\n\
         push r, rip; push r, dr6; push r, rsp; log 3; exit\n",
        kind.name()
    )
}

fn good(result: Result<Assembled, Diagnostics>) -> Assembled {
    result.unwrap_or_else(|diagnostics| {
        eprintln!("{diagnostics}");
        process::exit(1)
    })
}
