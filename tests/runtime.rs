//! The runtime itself: what other test kernels rely on.
#![no_std]
#![no_main]

bootimage::test_main! { tests: [adds] }

fn adds() {
    assert_eq!(core::hint::black_box(1) + 1, 2);
}
