//! Faults of probed instructions: everybody else sees them at the instruction, none is lost or counted twice, and what the kernel makes of
//! them is what it makes of them without a probe.

mod area;
mod cases;
mod copies;
mod oops;
mod paging;

pub use oops::as_a_child;

pub const TESTS: &crate::Tests = &[
    (
        "every_exception_and_every_fix_up",
        cases::every_exception_and_every_fix_up,
    ),
    (
        "what_the_kernel_decodes_is_refused",
        cases::what_the_kernel_decodes_is_refused,
    ),
    ("paged_in", paging::paged_in),
    (
        "asleep_while_the_module_is_unloaded",
        paging::asleep_while_the_module_is_unloaded,
    ),
    (
        "with_the_address_space_contended",
        paging::with_the_address_space_contended,
    ),
    (
        "every_instruction_of_the_copy_routines",
        copies::every_instruction_of_the_copy_routines,
    ),
    ("an_oops_names_the_instruction", oops::an_oops_names_the_instruction),
];
