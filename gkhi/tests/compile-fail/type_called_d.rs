//~ mismatched types
use gkhi::{ExitWith, Flow, hook};

pub struct D(u64);

hook! {
    static OPEN: fn(d: &D) = "open";
}

// The argument is a `D`, not the exit's data.
static EXIT: ExitWith<&'static str> = OPEN::exit(c"data", "text", |_, d| {
    let text: &&'static str = d;
    if text.is_empty() {
        Flow::Terminate
    } else {
        Flow::Continue
    }
});

fn main() {}
