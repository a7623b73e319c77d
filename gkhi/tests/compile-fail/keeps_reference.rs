//~ borrowed data escapes outside of closure
use std::sync::Mutex;

use gkhi::{ExitWith, Flow, hook};

hook! {
    static OPEN: fn(flags: &u32) = "open";
}

static EXIT: ExitWith<Mutex<Option<&'static u32>>> = OPEN::exit(c"keeps", Mutex::new(None), |kept, flags| {
    *kept.lock().unwrap() = Some(flags);
    Flow::Continue
});

fn main() {}
