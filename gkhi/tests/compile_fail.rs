//! What the types do not allow. The expected errors are next to the sources; `TRYBUILD=overwrite` writes them anew.

#[test]
fn wrong_prototypes_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile-fail/*.rs");
}
