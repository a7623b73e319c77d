//! `hook!` and `fire!`: what hooked code writes.

/// One increment of a counter, by its offset from GS. A template for `asm!`.
#[cfg(any(not(target_os = "none"), feature = "shared-counters"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __increment {
    ($at:literal) => {
        concat!("lock inc qword ptr gs:[", $at, "]")
    };
}

/// One increment of a counter, by its offset from GS. A template for `asm!`.
#[cfg(not(any(not(target_os = "none"), feature = "shared-counters")))]
#[doc(hidden)]
#[macro_export]
macro_rules! __increment {
    ($at:literal) => {
        concat!("inc qword ptr gs:[", $at, "]")
    };
}

/// Calls the entry of the target in RDI. A template for `asm!`.
#[cfg(not(feature = "linux-thunks"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __call_target {
    () => {
        "call [rdi]"
    };
}

/// Calls the entry of the target in RDI. A template for `asm!`.
#[cfg(feature = "linux-thunks")]
#[doc(hidden)]
#[macro_export]
macro_rules! __call_target {
    () => {
        "mov r11, [rdi]\ncall __x86_indirect_thunk_r11"
    };
}

/// Declares hooks.
///
/// ```
/// gkhi::hook! {
///     /// A file is about to be opened. Exits may change the flags.
///     pub static FILE_OPEN: fn(inode: u64, flags: &mut u32) = "file_open";
///
///     /// May this task send this signal? An exit may answer in the kernel's place.
///     pub static MAY_SIGNAL: fn(pid: u32, signal: u32) -> i32 = "may_signal";
///
///     /// One exit only.
///     pub static IDLE: exclusive fn() = "idle";
///
///     /// Its sites test a flag in memory: for code that must not be patched.
///     pub static EARLY: generic fn(stage: u32) = "early";
/// }
///
/// fn open(inode: u64, mut flags: u32) -> u32 {
///     gkhi::fire!(FILE_OPEN, inode, &mut flags);
///     flags
/// }
///
/// fn signal(pid: u32, signal: u32) -> i32 {
///     gkhi::fire!(return MAY_SIGNAL, pid, signal);
///     0
/// }
/// # assert_eq!((open(1, 2), signal(3, 4)), (2, 0));
/// ```
///
/// - `fn(..)` is a *normal* hook, `fn(..) -> R` a *conditional-return* hook (`-> ()` without a value). `exclusive` admits one exit only;
///   `generic` makes sites that are not patched.
/// - Up to eight arguments, of types that are a [`Word`](crate::Word): what does not fit in a register is passed by reference.
/// - The name in quotes is unique in the registry. `hook!` makes a static variable and a type of the same identifier; the type's
///   `exit` function makes exits for the hook.
#[macro_export]
macro_rules! hook {
    () => {};
    ($(#[$attribute:meta])* $visibility:vis static $hook:ident: fn($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $name:literal;
        $($rest:tt)*) => {
        $crate::__hook!([$(#[$attribute])*] [$visibility] $hook, 0, ($($argument: $type),*), [$($result)?], $name);
        $crate::hook!($($rest)*);
    };
    ($(#[$attribute:meta])* $visibility:vis static $hook:ident: exclusive fn($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $name:literal;
        $($rest:tt)*) => {
        $crate::__hook!([$(#[$attribute])*] [$visibility] $hook, $crate::kind::EXCLUSIVE, ($($argument: $type),*), [$($result)?], $name);
        $crate::hook!($($rest)*);
    };
    ($(#[$attribute:meta])* $visibility:vis static $hook:ident: generic fn($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $name:literal;
        $($rest:tt)*) => {
        $crate::__hook!([$(#[$attribute])*] [$visibility] $hook, $crate::kind::GENERIC, ($($argument: $type),*), [$($result)?], $name);
        $crate::hook!($($rest)*);
    };
    ($(#[$attribute:meta])* $visibility:vis static $hook:ident: exclusive generic fn($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $name:literal;
        $($rest:tt)*) => {
        $crate::__hook!([$(#[$attribute])*] [$visibility] $hook, $crate::kind::EXCLUSIVE | $crate::kind::GENERIC,
            ($($argument: $type),*), [$($result)?], $name);
        $crate::hook!($($rest)*);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __hook {
    ([$($attribute:tt)*] [$visibility:vis] $hook:ident, $kind:expr, ($($argument:ident: $type:ty),*), [$($result:ty)?], $name:literal) => {
        $($attribute)*
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "named like its variable")]
        #[derive(Debug)]
        #[repr(transparent)]
        $visibility struct $hook {
            head: $crate::Hook,
        }

        $($attribute)*
        $visibility static $hook: $hook = $hook { head: $crate::Hook::new(
            <$hook as $crate::HookType>::NAME,
            <$hook as $crate::HookType>::SIGNATURE,
            <$hook as $crate::HookType>::KIND,
            $crate::__count!($($argument)*) as u32,
        ) };

        // SAFETY: the type and the variable are made here, and there is no other variable of the type.
        unsafe impl $crate::HookType for $hook {
            const KIND: u32 = ($kind) $(| $crate::__first!($crate::kind::RETURNING; $result))?;
            const NAME: $crate::Name = $crate::Name::new($crate::__c_str!($name));
            const SIGNATURE: $crate::Name = $crate::Name::new(
                // With the place of the declaration: elsewhere the same text may name other types.
                $crate::__c_str!("fn(", $(stringify!($type), ",",)* ")" $(, "->", stringify!($result))?,
                    " in ", module_path!(), "::", stringify!($hook), ":", line!(), ":", column!()),
            );
        }

        impl ::core::ops::Deref for $hook {
            type Target = $crate::Hook;

            fn deref(&self) -> &$crate::Hook {
                &self.head
            }
        }

        const _: () = {
            $(assert!(
                !$crate::word::lends_for_ever(stringify!($type)),
                "every exit would be given the same `&'static mut`: write `&mut`"
            );)*
        };

        $crate::__typed!($hook, ($($argument: $type),*), [$($result)?]);
    };
}

/// The typed halves of a hook: the pass, and the making of exits.
///
/// Types are not hygienic in `macro_rules!`: the names of type parameters and of the body's type are such that no argument's type has
/// them. An argument of a type called `D` would otherwise become the exit's data.
#[doc(hidden)]
#[macro_export]
macro_rules! __typed {
    ($hook:ident, ($($argument:ident: $type:ty),*), []) => {
        #[allow(dead_code, clippy::too_many_arguments, clippy::unused_unit, reason = "as the hook is declared and used")]
        impl $hook {
            /// The out-of-line part of a pass.
            #[doc(hidden)]
            #[inline(always)]
            pub fn __pass(&self $(, $argument: $type)*) {
                $(let $argument = $crate::Word::into_word($argument);)*
                $crate::__enter!(normal $hook; $($argument)*);
            }

            /// An exit of this hook: `function` is called with the data and the hook's arguments. It must be a function or a
            /// closure that captures nothing. Register it with [`Registry::register`]($crate::Registry::register).
            #[must_use]
            pub const fn exit<__GkhiData: Sync + 'static, __GkhiFunction>(
                name: &'static ::core::ffi::CStr,
                data: __GkhiData,
                function: __GkhiFunction,
            ) -> $crate::ExitWith<__GkhiData>
            where
                __GkhiFunction: Fn(&__GkhiData $(, $type)*) -> $crate::Flow + Copy + Sync + 'static,
            {
                $crate::__exit!($hook, name, data, function, __GkhiData, __GkhiFunction, entry, $crate::Flow, ($($argument: $type),*))
            }
        }
    };
    ($hook:ident, ($($argument:ident: $type:ty),*), [$result:ty]) => {
        #[allow(dead_code, clippy::too_many_arguments, clippy::unused_unit, reason = "as the hook is declared and used")]
        impl $hook {
            /// The out-of-line part of a pass: what the hooked function is to return, if anything.
            #[doc(hidden)]
            #[inline(always)]
            pub fn __pass_returning(&self $(, $argument: $type)*) -> ::core::option::Option<$result> {
                $(let $argument = $crate::Word::into_word($argument);)*
                let (flow, value): (u64, u64);
                $crate::__enter!(returning flow value $hook; $($argument)*);
                if (flow as i32) < 0 {
                    // SAFETY: an exit that answers so has given a value of this type.
                    ::core::option::Option::Some(unsafe { <$result as $crate::Word>::from_word(value) })
                } else {
                    ::core::option::Option::None
                }
            }

            /// An exit of this hook: `function` is called with the data and the hook's arguments. It must be a function or a
            /// closure that captures nothing. Register it with [`Registry::register`]($crate::Registry::register).
            #[must_use]
            pub const fn exit<__GkhiData: Sync + 'static, __GkhiFunction>(
                name: &'static ::core::ffi::CStr,
                data: __GkhiData,
                function: __GkhiFunction,
            ) -> $crate::ExitWith<__GkhiData>
            where
                __GkhiFunction: Fn(&__GkhiData $(, $type)*) -> $crate::Verdict<$result> + Copy + Sync + 'static,
            {
                $crate::__exit!($hook, name, data, function, __GkhiData, __GkhiFunction, entry_returning, $crate::Verdict<$result>, ($($argument: $type),*))
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __exit {
    ($hook:ident, $name:ident, $data:ident, $function:ident, $d:ident, $f:ident, $entry:ident, $answer:ty, ($($argument:ident: $type:ty),*)) => {{
        struct __GkhiBody<$d, $f>(::core::marker::PhantomData<($d, $f)>);
        // SAFETY: `run` is called with the record made here, in front of its data, and with the words of the hook's arguments.
        unsafe impl<$d: Sync + 'static, $f> $crate::Body<{ $crate::__count!($($argument)*) }> for __GkhiBody<$d, $f>
        where
            $f: Fn(&$d $(, $type)*) -> $answer + Copy + Sync + 'static,
        {
            #[inline(always)]
            unsafe fn run(exit: *const $crate::Exit, words: [u64; $crate::__count!($($argument)*)]) -> $crate::Answer {
                let [$($argument),*] = words;
                // SAFETY: it has no size, and a value of it was given to `exit`.
                let function = unsafe { ::core::mem::zeroed::<$f>() };
                // SAFETY: the record stands in front of its data, and each word is that of the argument's type.
                unsafe {
                    function($crate::ExitWith::<$d>::data_of(exit) $(, <$type as $crate::Word>::from_word($argument))*).into()
                }
            }
        }
        let _ = $function;
        const { assert!(::core::mem::size_of::<$f>() == 0, "an exit is a function or a closure that captures nothing") };
        // SAFETY: the functions do what the hook's prototype says, with the data behind the record.
        unsafe {
            $crate::ExitWith::new(
                $crate::Exit::raw(
                    <$hook as $crate::HookType>::NAME,
                    $crate::Name::new($name),
                    <$hook as $crate::HookType>::SIGNATURE,
                    $crate::Arity::<{ $crate::__count!($($argument)*) }>::call::<__GkhiBody<$d, $f>>(),
                    $crate::Arity::<{ $crate::__count!($($argument)*) }>::$entry::<__GkhiBody<$d, $f>>(),
                ),
                $data,
            )
        }
    }};
}

/// The first of two.
#[doc(hidden)]
#[macro_export]
macro_rules! __first {
    ($first:expr; $($second:tt)*) => {
        $first
    };
}

/// How many.
#[doc(hidden)]
#[macro_export]
macro_rules! __count {
    ($($one:ident)*) => {
        0usize $(+ $crate::__first!(1usize; $one))*
    };
}

/// A C string of literals.
#[doc(hidden)]
#[macro_export]
macro_rules! __c_str {
    ($($part:expr),* $(,)?) => {
        match ::core::ffi::CStr::from_bytes_with_nul(concat!($($part,)* "\0").as_bytes()) {
            ::core::result::Result::Ok(string) => string,
            ::core::result::Result::Err(_) => panic!("a name holds no zero byte"),
        }
    };
}

/// Passes a hook: the site.
///
/// - `fire!(HOOK, arguments..)` on a normal hook.
/// - `fire!(return HOOK, arguments..)` on a conditional-return hook: makes the function it stands in return what an exit says.
///   `fire!(return HOOK, arguments.. => |value| expression)` returns the expression instead.
/// - `fire!(generic HOOK, ..)`, `fire!(generic return HOOK, ..)` on a generic hook.
///
/// The arguments are evaluated only when an exit is armed. On a hook that is not generic a dormant site is one 5-byte NOP. To let
/// exits change a local variable and keep it in a register while the site is dormant, pass a copy and take it back:
/// `fire!(HOOK, ref len)` passes `&mut` to a copy of `len` and then assigns it.
#[cfg(feature = "hooks")]
#[macro_export]
macro_rules! fire {
    (generic return $hook:path $(, $($rest:tt)*)?) => {{
        $crate::__site!(generic $hook);
        if $hook.is_enabled() {
            $crate::__arguments!(returning $hook; []; $($($rest)*)?);
        }
    }};
    (generic $hook:path $(, $($rest:tt)*)?) => {{
        $crate::__site!(generic $hook);
        if $hook.is_enabled() {
            $crate::__arguments!(normal $hook; []; $($($rest)*)?);
        }
    }};
    (return $hook:path $(, $($rest:tt)*)?) => {
        'dormant: {
            'armed: {
                $crate::__site!($hook, break 'armed);
                break 'dormant;
            }
            $crate::__arguments!(returning $hook; []; $($($rest)*)?);
        }
    };
    ($hook:path $(, $($rest:tt)*)?) => {
        'dormant: {
            'armed: {
                $crate::__site!($hook, break 'armed);
                break 'dormant;
            }
            $crate::__arguments!(normal $hook; []; $($($rest)*)?);
        }
    };
}

/// Passes a hook: the site.
///
/// - `fire!(HOOK, arguments..)` on a normal hook.
/// - `fire!(return HOOK, arguments..)` on a conditional-return hook: makes the function it stands in return what an exit says.
///   `fire!(return HOOK, arguments.. => |value| expression)` returns the expression instead.
/// - `fire!(generic HOOK, ..)`, `fire!(generic return HOOK, ..)` on a generic hook.
///
/// The arguments are evaluated only when an exit is armed. On a hook that is not generic a dormant site is one 5-byte NOP. To let
/// exits change a local variable and keep it in a register while the site is dormant, pass a copy and take it back:
/// `fire!(HOOK, ref len)` passes `&mut` to a copy of `len` and then assigns it.
#[cfg(not(feature = "hooks"))]
#[macro_export]
macro_rules! fire {
    (generic return $hook:path $(, $($rest:tt)*)?) => {
        $crate::fire!(return $hook $(, $($rest)*)?)
    };
    (generic $hook:path $(, $($rest:tt)*)?) => {
        $crate::fire!($hook $(, $($rest)*)?)
    };
    (return $hook:path $(, $($rest:tt)*)?) => {
        if false {
            $crate::__arguments!(returning $hook; []; $($($rest)*)?);
        }
    };
    ($hook:path $(, $($rest:tt)*)?) => {
        if false {
            $crate::__arguments!(normal $hook; []; $($($rest)*)?);
        }
    };
}

/// The instruction of a site, and its record. The label is where an armed pass goes.
#[doc(hidden)]
#[macro_export]
macro_rules! __site {
    ($hook:path, $armed:expr) => {{
        const _: () = assert!(
            <$hook as $crate::HookType>::KIND & $crate::kind::GENERIC == 0,
            "this hook is generic: write `fire!(generic ..)`"
        );
        // SAFETY: a NOP. When the registry has made it a jump it leads to the label, with every register as it was; the code there
        // is what Rust knows it to be.
        unsafe {
            ::core::arch::asm!(
                "2:",
                ".byte 0x0f, 0x1f, 0x44, 0x00, 0x00",
                ".pushsection gkhi_sites, \"awR\", @progbits",
                ".balign 8",
                ".long 2b - .",
                ".long {armed} - .",
                ".quad {hook} - .",
                ".quad 0, 0",
                ".popsection",
                armed = label { $armed },
                hook = sym $hook,
                options(nomem, nostack, preserves_flags),
            );
        }
    }};
    (generic $hook:path) => {{
        const _: () = assert!(
            <$hook as $crate::HookType>::KIND & $crate::kind::GENERIC != 0,
            "this hook is not generic: write `fire!(..)` without the word"
        );
        // SAFETY: no instruction, only a record that says that the hook has a site.
        unsafe {
            ::core::arch::asm!(
                ".pushsection gkhi_sites, \"awR\", @progbits",
                ".balign 8",
                ".long 0, 0",
                ".quad {hook} - .",
                ".quad 0, 0",
                ".popsection",
                hook = sym $hook,
                options(nomem, nostack, preserves_flags),
            );
        }
    }};
}

/// Takes the arguments of `fire!` one by one.
#[doc(hidden)]
#[macro_export]
macro_rules! __arguments {
    (normal $hook:path; [$($done:expr,)*];) => {
        $hook.__pass($($done),*)
    };
    (returning $hook:path; [$($done:expr,)*];) => {
        if let ::core::option::Option::Some(value) = $hook.__pass_returning($($done),*) {
            return value;
        }
    };
    (returning $hook:path; [$($done:expr,)*]; => |$value:ident| $map:expr) => {
        if let ::core::option::Option::Some($value) = $hook.__pass_returning($($done),*) {
            return $map;
        }
    };
    ($mode:ident $hook:path; [$($done:expr,)*]; ref $variable:ident => $($rest:tt)*) => {{
        let mut copy = $variable;
        $crate::__arguments!($mode $hook; [$($done,)* &mut copy,]; => $($rest)*);
        $variable = copy;
    }};
    ($mode:ident $hook:path; [$($done:expr,)*]; ref $variable:ident $(, $($rest:tt)*)?) => {{
        let mut copy = $variable;
        $crate::__arguments!($mode $hook; [$($done,)* &mut copy,]; $($($rest)*)?);
        $variable = copy;
    }};
    ($mode:ident $hook:path; [$($done:expr,)*]; $argument:expr => $($rest:tt)*) => {
        $crate::__arguments!($mode $hook; [$($done,)* $argument,]; => $($rest)*)
    };
    ($mode:ident $hook:path; [$($done:expr,)*]; $argument:expr $(, $($rest:tt)*)?) => {
        $crate::__arguments!($mode $hook; [$($done,)* $argument,]; $($($rest)*)?)
    };
}

/// The call of an armed pass, with the arguments' words.
///
/// The first word, and on a normal hook the second, comes in any register and is moved: were it asked for in RSI, the compiler would
/// like to keep it there all along, and move it out again in the hot path.
#[doc(hidden)]
#[macro_export]
macro_rules! __enter {
    (normal $hook:path;) => {
        $crate::__call!($hook, [], [], [lateout("rsi") _])
    };
    (normal $hook:path; $a:ident) => {
        $crate::__call!($hook, ["mov rsi, {a}"], [], [a = in(reg) $a, out("rsi") _])
    };
    (normal $hook:path; $a:ident $b:ident $($more:ident)*) => {
        $crate::__more!($hook, ["mov rsi, {a}", "mov rdx, {b}"], [a = in(reg) $a, b = in(reg) $b], [out("rsi") _, out("rdx") _]; $($more)*)
    };
    (returning $flow:ident $value:ident $hook:path;) => {
        $crate::__call!($hook, [], [], [lateout("rax") $flow, lateout("rdx") $value])
    };
    (returning $flow:ident $value:ident $hook:path; $a:ident) => {
        $crate::__call!($hook, ["mov rsi, {a}"], [], [a = in(reg) $a, out("rsi") _, lateout("rax") $flow, lateout("rdx") $value])
    };
    (returning $flow:ident $value:ident $hook:path; $a:ident $b:ident $($more:ident)*) => {
        $crate::__more!($hook, ["mov rsi, {a}"], [a = in(reg) $a],
            [out("rsi") _, inlateout("rdx") $b => $value, lateout("rax") $flow]; $($more)*)
    };
}

/// The third argument and those after it.
#[doc(hidden)]
#[macro_export]
macro_rules! __more {
    ($hook:path, [$($setup:literal),*], [$($named:tt)*], [$($operands:tt)*];) => {
        $crate::__call!($hook, [$($setup),*], [], [$($named)*, $($operands)*])
    };
    ($hook:path, [$($setup:literal),*], [$($named:tt)*], [$($operands:tt)*]; $c:ident) => {
        $crate::__call!($hook, [$($setup),*], [], [$($named)*, $($operands)*, inlateout("rcx") $c => _])
    };
    ($hook:path, [$($setup:literal),*], [$($named:tt)*], [$($operands:tt)*]; $c:ident $d:ident) => {
        $crate::__call!($hook, [$($setup),*], [], [$($named)*, $($operands)*, inlateout("rcx") $c => _, inlateout("r8") $d => _])
    };
    ($hook:path, [$($setup:literal),*], [$($named:tt)*], [$($operands:tt)*]; $c:ident $d:ident $e:ident) => {
        $crate::__call!($hook, [$($setup),*], [],
            [$($named)*, $($operands)*, inlateout("rcx") $c => _, inlateout("r8") $d => _, inlateout("r9") $e => _])
    };
    // On the stack: always three words and one to keep it aligned, since a thunk passes three on.
    ($hook:path, [$($setup:literal),*], [$($named:tt)*], [$($operands:tt)*]; $c:ident $d:ident $e:ident $f:ident) => {
        $crate::__call!($hook, ["sub rsp, 24", "push {f}", $($setup),*], ["add rsp, 32"],
            [f = in(reg) $f, $($named)*, $($operands)*, inlateout("rcx") $c => _, inlateout("r8") $d => _, inlateout("r9") $e => _])
    };
    ($hook:path, [$($setup:literal),*], [$($named:tt)*], [$($operands:tt)*]; $c:ident $d:ident $e:ident $f:ident $g:ident) => {
        $crate::__call!($hook, ["sub rsp, 16", "push {g}", "push {f}", $($setup),*], ["add rsp, 32"],
            [f = in(reg) $f, g = in(reg) $g, $($named)*, $($operands)*,
                inlateout("rcx") $c => _, inlateout("r8") $d => _, inlateout("r9") $e => _])
    };
    ($hook:path, [$($setup:literal),*], [$($named:tt)*], [$($operands:tt)*];
        $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident) => {
        $crate::__call!($hook, ["sub rsp, 8", "push {h}", "push {g}", "push {f}", $($setup),*], ["add rsp, 32"],
            [f = in(reg) $f, g = in(reg) $g, h = in(reg) $h, $($named)*, $($operands)*,
                inlateout("rcx") $c => _, inlateout("r8") $d => _, inlateout("r9") $e => _])
    };
}

/// Counts in, calls, counts out. R10 holds the counter over the call: entries preserve it.
#[doc(hidden)]
#[macro_export]
macro_rules! __call {
    ($hook:path, [$($setup:literal),*], [$($cleanup:literal),*], [$($operands:tt)*]) => {
        // SAFETY: the registry has published a target before the site became a jump, or the flag was set; it stays while this pass is
        // counted in. Its entry preserves all general-purpose registers but R11, and RAX and RDX when it answers; the others that C
        // does not preserve are named here.
        unsafe {
            ::core::arch::asm!(
                $($setup,)*
                "mov r10, [rip + {hook}]",
                $crate::__increment!("r10"),
                "mov rdi, [rip + {hook} + 8]",
                $crate::__call_target!(),
                "2:",
                $($cleanup,)*
                "add r10, [rdi + 8]",
                $crate::__increment!("r10"),
                ".pushsection gkhi_calls, \"awR\", @progbits",
                ".balign 8",
                ".long 2b - 1 - .",
                ".long 0",
                ".quad {hook} - .",
                ".popsection",
                hook = sym $hook,
                $($operands)*,
                lateout("rdi") _,
                lateout("r10") _,
                lateout("r11") _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                out("xmm16") _, out("xmm17") _, out("xmm18") _, out("xmm19") _,
                out("xmm20") _, out("xmm21") _, out("xmm22") _, out("xmm23") _,
                out("xmm24") _, out("xmm25") _, out("xmm26") _, out("xmm27") _,
                out("xmm28") _, out("xmm29") _, out("xmm30") _, out("xmm31") _,
                out("k0") _, out("k1") _, out("k2") _, out("k3") _, out("k4") _, out("k5") _, out("k6") _, out("k7") _,
                out("mm0") _, out("mm1") _, out("mm2") _, out("mm3") _, out("mm4") _, out("mm5") _, out("mm6") _, out("mm7") _,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            );
        }
    };
}
