//! Random blocks of what ring 0 alone may do, among ordinary instructions, and of all that raises an exception.
//!
//! What is not here, and why: SWAPGS and loads of GS, behind which the kernel cannot take a breakpoint; loads of CR3 and of the
//! descriptor tables with anything but what is there; MSRs that switch off what the kernel runs on; INVD; SMM, VMX and SVM, which the
//! emulated CPU does not have or which leave the kernel; reserved bits of CR0, CR4 and DR7, which QEMU's translator does not check; PAUSE, behind which it forgets a single step.

use alloc::vec;
use alloc::vec::Vec;

use bootimage::segments::{KERNEL_CS, KERNEL_DS};

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

pub struct Block {
    pub instructions: Vec<Vec<u8>>,
}

/// One instruction, or several that make sense together only. A displacement of 0x7f7f7f7f is that of a later instruction.
type Part = Vec<Vec<u8>>;

const LATER: [u8; 4] = [0x7f; 4];

impl Block {
    /// The block of a seed.
    pub fn generate(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut instructions: Vec<Vec<u8>> = Vec::new();
        // Where others may go: the beginnings of parts.
        let mut starts = Vec::new();
        let mut len = 0;
        for _ in 0..2 + random.below(7) {
            let part = part(&mut random);
            starts.push(len);
            len += part.iter().map(Vec::len).sum::<usize>();
            instructions.extend(part);
        }
        starts.push(len);
        let mut at = 0;
        for instruction in &mut instructions {
            at += instruction.len();
            let next = at;
            if let Some(place) = instruction.windows(4).position(|bytes| bytes == LATER) {
                let later: Vec<usize> = starts.iter().copied().filter(|start| *start >= next).collect();
                let target = *random.choose(&later[..later.len().min(3)]);
                instruction[place..place + 4].copy_from_slice(&((target - next) as u32).to_le_bytes());
            }
        }
        Block { instructions }
    }

    /// Where its instructions begin.
    pub fn offsets(&self) -> impl Iterator<Item = usize> {
        self.instructions.iter().scan(0, |at, instruction| {
            let offset = *at;
            *at += instruction.len();
            Some(offset)
        })
    }

    /// Its bytes, with a jump behind them.
    pub fn code(&self, leave: u64) -> Vec<u8> {
        let mut code = self.instructions.concat();
        code.extend([0xff, 0x25, 0, 0, 0, 0]); // jmp [rip]
        code.extend(leave.to_le_bytes());
        assert!(code.len() <= 512, "a block is too long for its function");
        code
    }
}

fn one(bytes: &[u8]) -> Part {
    vec![bytes.to_vec()]
}

fn all(instructions: &[&[u8]]) -> Part {
    instructions.iter().map(|bytes| bytes.to_vec()).collect()
}

fn part(random: &mut Random) -> Part {
    match random.below(8) {
        0 | 1 => ordinary(random),
        2 => control_registers(random),
        3 => system(random),
        4 => flags(random),
        5 => transfers(random),
        6 => strings_and_ports(random),
        _ => faults(random),
    }
}

/// What changes registers and memory, and branches.
fn ordinary(random: &mut Random) -> Part {
    let register = random.below(3) as u8; // rax rcx rdx
    let byte = random.next() as u8;
    let choices: &[&[u8]] = &[
        &[0x48, 0x01, 0xc0 | register << 3],           // add rax, r
        &[0x48, 0x83, 0xf0 | register, byte],          // xor r, imm8
        &[0x48, 0x8b, 0x40 | register << 3 | 3, 8],    // mov r, [rbx + 8]
        &[0x48, 0x89, 0x40 | register << 3 | 6, 0x10], // mov [rsi + 16], r
        &[0xf0, 0x48, 0x0f, 0xc1, 0x07],               // lock xadd [rdi], rax
        &[0x48, 0xd3, 0xc0],                           // rol rax, cl
        &[0x50 | register, 0x58 | register][..1],      // push r
        &[0x0f, 0x84, 0x7f, 0x7f, 0x7f, 0x7f],         // jz
        &[0x0f, 0x82, 0x7f, 0x7f, 0x7f, 0x7f],         // jb
        &[0xe9, 0x7f, 0x7f, 0x7f, 0x7f],               // jmp
        &[0xe8, 0x7f, 0x7f, 0x7f, 0x7f],               // call
        &[0xf3, 0x0f, 0x1e, 0xfa],                     // endbr64
        &[0x0f, 0x1f, 0x44, 0, 0],                     // nop
        &[0x48, 0x0f, 0xb1, 0x0b],                     // cmpxchg [rbx], rcx
        &[0x0f, 0xae, 0xf0],                           // mfence
    ];
    one(random.choose(choices))
}

fn control_registers(random: &mut Random) -> Part {
    let choices: &[&[&[u8]]] = &[
        &[&[0x0f, 0x20, 0xc0], &[0x0f, 0x22, 0xc0]], // mov rax, cr0; mov cr0, rax
        &[&[0x0f, 0x20, 0xd8], &[0x0f, 0x22, 0xd8]], // cr3
        &[&[0x0f, 0x20, 0xe0], &[0x0f, 0x22, 0xe0]], // cr4
        &[&[0x0f, 0x22, 0xd1], &[0x0f, 0x20, 0xd2]], // mov cr2, rcx; mov rdx, cr2
        &[&[0x83, 0xe1, 0x0f], &[0x44, 0x0f, 0x22, 0xc1]], // and ecx, 15; mov cr8, rcx
        &[&[0x44, 0x0f, 0x20, 0xc2]],                // mov rdx, cr8
        &[&[0x0f, 0x21, 0xf8], &[0x0f, 0x23, 0xf8]], // mov rax, dr7; mov dr7, rax
        &[&[0x89, 0xc0], &[0x0f, 0x23, 0xc0], &[0x0f, 0x21, 0xc1]], // mov eax, eax; mov dr0, rax; mov rcx, dr0
        &[&[0x89, 0xd2], &[0x0f, 0x23, 0xda]],       // mov edx, edx; mov dr3, rdx
        &[&[0x0f, 0x01, 0xe0], &[0x0f, 0x01, 0xf0]], // smsw eax; lmsw ax
        &[&[0x0f, 0x06]],                            // clts
        // mov rax, cr0; or al, TS; mov cr0, rax; movups xmm0, xmm1: #NM
        &[
            &[0x0f, 0x20, 0xc0],
            &[0x0c, 8],
            &[0x0f, 0x22, 0xc0],
            &[0x0f, 0x10, 0xc1],
        ],
    ];
    all(random.choose(choices))
}

/// MSRs, descriptor tables, segments, caches.
fn system(random: &mut Random) -> Part {
    let msr: u32 = *random.choose(&[
        0xc000_0080,
        0xc000_0081,
        0xc000_0082,
        0xc000_0084,
        0x174,
        0x277,
        0xc000_0100,
    ]);
    let [a, b, c, d] = msr.to_le_bytes();
    let ds = KERNEL_DS.0 as u8;
    let choices: &[&[&[u8]]] = &[
        &[&[0xb9, a, b, c, d], &[0x0f, 0x32]],                // mov ecx, msr; rdmsr
        &[&[0xb9, a, b, c, d], &[0x0f, 0x32], &[0x0f, 0x30]], // ...; wrmsr
        // mov ecx, LSTAR; xor edx, edx; wrmsr; FMASK and FS.base as well
        &[&[0xb9, 0x82, 0, 0, 0xc0], &[0x31, 0xd2], &[0x0f, 0x30]],
        &[&[0xb9, 0x84, 0, 0, 0xc0], &[0x31, 0xd2], &[0x0f, 0x30]],
        &[&[0xb9, 0, 1, 0, 0xc0], &[0x31, 0xd2], &[0x0f, 0x30]],
        // mov ecx, PAT; mov eax, -1; mov edx, -1; wrmsr: #GP on a CPU that checks
        &[
            &[0xb9, 0x77, 2, 0, 0],
            &[0x83, 0xc8, 0xff],
            &[0x83, 0xca, 0xff],
            &[0x0f, 0x30],
        ],
        &[&[0x0f, 0x01, 0x4b, 0x40], &[0x0f, 0x01, 0x5b, 0x40]], // sidt [rbx + 64]; lidt [rbx + 64]
        &[&[0x0f, 0x01, 0x43, 0x40], &[0x0f, 0x01, 0x53, 0x40]], // sgdt; lgdt
        &[&[0x66, 0x0f, 0x00, 0xc8], &[0x0f, 0x00, 0xd8]],       // str ax; ltr ax: #GP, it is busy
        &[&[0x31, 0xc0], &[0x0f, 0x00, 0xd0]],                   // xor eax, eax; lldt ax
        &[&[0x66, 0xb8, 0xf8, 0x7f], &[0x0f, 0x00, 0xd0]],       // mov ax, 0x7ff8; lldt ax: #GP
        &[&[0x0f, 0x00, 0xc0]],                                  // sldt eax
        &[&[0x0f, 0x01, 0x3b]],                                  // invlpg [rbx]
        &[&[0x0f, 0x09]],                                        // wbinvd
        &[&[0xb8, ds, 0, 0, 0], &[0x8e, 0xd8], &[0x8c, 0xd9]],   // mov eax, ds; mov ds, eax; mov ecx, ds
        &[&[0xb8, ds, 0, 0, 0], &[0x8e, 0xd0], &[0x48, 0xff, 0xc1]], // mov ss, eax; inc rcx
        &[&[0x6a, ds], &[0x0f, 0xa1]],                           // push; pop fs
        &[&[0x66, 0xb8, 0xf8, 0x7f], &[0x8e, 0xc0]],             // mov es, beyond the table: #GP
        &[&[0xf3, 0x48, 0x0f, 0xae, 0xc0]],                      // rdfsbase rax
        &[&[0x48, 0x89, 0xd8], &[0xf3, 0x48, 0x0f, 0xae, 0xd0]], // mov rax, rbx; wrfsbase rax
        &[&[0x31, 0xc9], &[0x0f, 0x01, 0xd0], &[0x0f, 0x01, 0xd1]], // xor ecx, ecx; xgetbv; xsetbv
        &[&[0x31, 0xc9], &[0x31, 0xc0], &[0x31, 0xd2], &[0x0f, 0x01, 0xd1]], // xsetbv of 0: #GP
        &[&[0x31, 0xc0], &[0x31, 0xc9], &[0x0f, 0xa2]],          // cpuid of 0
        &[&[0x0f, 0x31], &[0x31, 0xc0], &[0x31, 0xd2]],          // rdtsc, forgotten
    ];
    all(random.choose(choices))
}

fn flags(random: &mut Random) -> Part {
    let bit: u32 = *random.choose(&[1 << 8, 1 << 9, 3 << 12, 1 << 14, 1 << 18, 1 << 21, 1 << 10, 1]);
    let [a, b, c, d] = bit.to_le_bytes();
    let or_and_xor = *random.choose(&[0x0c, 0x34]);
    let choices: &[&[&[u8]]] = &[
        &[&[0xfa]],                                                       // cli
        &[&[0xfb]],                                                       // sti
        &[&[0xfb], &[0x48, 0xff, 0xc0]],                                  // sti; inc rax
        &[&[0xfa], &[0x9c], &[0x58]],                                     // cli; pushfq; pop rax
        &[&[0x9c], &[0x48, 0x81, or_and_xor, 0x24, a, b, c, d], &[0x9d]], // pushfq; change; popfq
        &[&[0x66, 0x9c], &[0x66, 0x81, or_and_xor, 0x24, a, b], &[0x66, 0x9d]],
        &[&[0xf9], &[0x9f], &[0x9e]], // stc; lahf; sahf
    ];
    all(random.choose(choices))
}

/// Calls, returns, far transfers, returns from interrupts.
fn transfers(random: &mut Random) -> Part {
    let (cs, ss) = (KERNEL_CS.0 as u8, KERNEL_DS.0 as u8);
    let lea: &[u8] = &[0x48, 0x8d, 0x05, 0x7f, 0x7f, 0x7f, 0x7f]; // lea rax, [later]
    let bad = 0x78;
    let choices: &[&[&[u8]]] = &[
        &[lea, &[0xff, 0xe0]],                                   // jmp rax
        &[lea, &[0xff, 0xd0]],                                   // call rax
        &[lea, &[0x50], &[0xc3]],                                // push rax; ret
        &[lea, &[0x50], &[0xc2, 8, 0]],                          // ret 8
        &[lea, &[0x50], &[0xff, 0x24, 0x24]],                    // jmp [rsp]
        &[&[0x6a, cs], lea, &[0x50], &[0x48, 0xcb]],             // push cs; push rax; retf
        &[&[0x6a, cs], lea, &[0x50], &[0x48, 0xca, 8, 0]],       // retf 8
        &[&[0x6a, bad], lea, &[0x50], &[0x48, 0xcb]],            // retf to a bad selector: #GP
        &[&[0x6a, cs], lea, &[0x50], &[0x48, 0xff, 0x2c, 0x24]], // jmp far [rsp]
        &[&[0x6a, cs], lea, &[0x50], &[0x48, 0xff, 0x1c, 0x24]], // call far [rsp]
        // mov rcx, rsp; push ss; push rcx; pushfq; push cs; push rax; iretq
        &[
            &[0x48, 0x89, 0xe1],
            &[0x6a, ss],
            &[0x51],
            &[0x9c],
            &[0x6a, cs],
            lea,
            &[0x50],
            &[0x48, 0xcf],
        ],
        &[
            &[0x48, 0x89, 0xe1],
            &[0x6a, ss],
            &[0x51],
            &[0x9c],
            &[0x6a, bad],
            lea,
            &[0x50],
            &[0x48, 0xcf],
        ],
        &[&[0xb9, 3, 0, 0, 0], &[0x48, 0xff, 0xc0], &[0xe2, 0xfb]], // mov ecx, 3; inc rax; loop
        &[&[0x31, 0xc9], &[0xe3, 0x00]],                            // xor ecx, ecx; jrcxz
        &[&[0x67, 0xe3, 0x01], &[0xf8]],                            // jecxz; clc
    ];
    all(random.choose(choices))
}

fn strings_and_ports(random: &mut Random) -> Part {
    let choices: &[&[&[u8]]] = &[
        &[&[0xe6, 0x80]],                                              // out 0x80, al
        &[&[0xe5, 0x80]],                                              // in eax, 0x80
        &[&[0xba, 0x80, 0, 0, 0], &[0xee]],                            // mov edx, 0x80; out dx, al
        &[&[0xba, 0x80, 0, 0, 0], &[0x66, 0xed]],                      // in ax, dx
        &[&[0xba, 0x80, 0, 0, 0], &[0x83, 0xe1, 0x1f], &[0xf3, 0x6e]], // and ecx, 31; rep outsb
        &[&[0xba, 0x80, 0, 0, 0], &[0x83, 0xe1, 0x1f], &[0xf3, 0x6d]], // rep insd
        &[&[0xf3, 0xa4]],                                              // rep movsb
        &[&[0xb9, 0, 8, 0, 0], &[0xf3, 0xaa]],                         // mov ecx, 2048; rep stosb
        &[&[0xb9, 0, 1, 0, 0], &[0xf3, 0x48, 0xa5]], // rep movsq, into what cannot be written at times
        &[&[0xf2, 0xae]],                            // repne scasb
        &[&[0xf3, 0xa6]],                            // repe cmpsb
        &[&[0x31, 0xc9], &[0xf3, 0xab]],             // xor ecx, ecx; rep stosd
        &[&[0xac]],                                  // lodsb
    ];
    all(random.choose(choices))
}

/// What raises an exception, mostly.
fn faults(random: &mut Random) -> Part {
    if random.below(2) == 0 {
        // Otherwise few blocks would get far.
        return ordinary(random);
    }
    let choices: &[&[&[u8]]] = &[
        &[&[0x31, 0xc9], &[0x48, 0xf7, 0xf1]], // xor ecx, ecx; div rcx: #DE
        &[&[0x0f, 0x0b]],                      // ud2
        &[&[0x0f, 0xff, 0xc0]],                // ud0 eax, eax
        &[&[0x31, 0xc0], &[0x48, 0x8b, 0x00]], // xor eax, eax; mov rax, [rax]: #PF
        &[&[0x48, 0x89, 0x83, 0, 0x20, 0, 0]], // mov [rbx + 8192], rax: #PF, read-only, or nothing there
        &[&[0xff, 0xe3]],                      // jmp rbx: #PF, not executable
        &[&[0xff, 0xd3]],                      // call rbx
        &[&[0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x80], &[0x48, 0x8b, 0x00]], // mov rax, not canonical; mov rax, [rax]: #GP
        &[&[0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x80], &[0xff, 0xe0]], // jmp there
        &[&[0x48, 0xbd, 0, 0, 0, 0, 0, 0, 0, 0x80], &[0x48, 0x8b, 0x45, 0]], // mov rbp, not canonical; mov rax, [rbp]: #SS
        &[&[0x0f, 0x28, 0x43, 0x01]],                                        // movaps xmm0, [rbx + 1]: #GP
        &[&[0xcd, 0x04]],                                                    // int 4
        &[&[0xf1]],                                                          // int1
        &[&[0xcc]],                                                          // int3
    ];
    all(random.choose(choices))
}
