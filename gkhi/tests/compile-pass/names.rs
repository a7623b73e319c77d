//! The macros' own names do not get in the way of the types' that arguments have.
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gkhi::{ExitWith, Flow, Verdict, fire, hook};

pub struct D(u64);
pub struct F(u64);
pub struct Body(u64);
pub enum Option {}
#[allow(dead_code)]
fn none(_: Option) {}

hook! {
    static OPEN: fn(d: &D, f: &F, body: &Body, name: &u64, data: u64, function: u64) = "open";
    static ASK: fn(flow: &D, value: &F) -> u64 = "ask";
}

static EXIT: ExitWith<AtomicU64> = OPEN::exit(c"exit", AtomicU64::new(0), |sum, d, f, body, name, data, function| {
    sum.fetch_add(d.0 + f.0 + body.0 + *name + data + function, Relaxed);
    Flow::Continue
});
static ANSWER: ExitWith<()> = ASK::exit(c"answer", (), |_, d, f| Verdict::Return(d.0 + f.0));

fn ask() -> u64 {
    fire!(OPEN, &D(1), &F(2), &Body(3), &4, 5, 6);
    fire!(return ASK, &D(1), &F(2));
    0
}

fn main() {
    assert_eq!(ask(), 0);
    assert_eq!(
        (EXIT.name().to_bytes(), ANSWER.name().to_bytes()),
        (&b"exit"[..], &b"answer"[..])
    );
}
