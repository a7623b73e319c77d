use gkhi::{ExitWith, Flow, Verdict, fire, hook};

hook! {
    static OPEN: fn(inode: u64, flags: &mut u32) = "open";
    static ASK: exclusive fn(name: &&str) -> Option<&'static u8> = "ask";
}

fn on_open(_: &(), _inode: u64, flags: &mut u32) -> Flow {
    *flags = 0;
    Flow::Continue
}

static FUNCTION: ExitWith<()> = OPEN::exit(c"function", (), on_open).last();
static CLOSURE: ExitWith<u32> = ASK::exit(c"closure", 3, |limit, name| {
    if name.len() as u32 > *limit { Verdict::Return(None) } else { Verdict::Continue }
});

fn ask() -> Option<&'static u8> {
    let mut flags = 1;
    fire!(OPEN, 1, ref flags);
    fire!(return ASK, &"name");
    Some(&[1][flags as usize - 1])
}

fn main() {
    assert_eq!(ask(), Some(&1));
    assert_eq!((FUNCTION.name().to_bytes(), CLOSURE.name().to_bytes()), (&b"function"[..], &b"closure"[..]));
}
