# From the boot loader to 64-bit Rust, for the first CPU (PVH) and for the others (SIPI).
#
# The boot page tables map the first 4 GiB three times with 2 MiB pages: at their own address (the code that turns paging on needs it), at
# DIRECT_MAP (no-execute; the kernel keeps this one) and, the first GiB only, at KERNEL_BASE. The kernel replaces them with exact
# mappings as soon as it can; other CPUs start on them in their turn.

# --- PVH entry note: name "Xen", type 18 (XEN_ELFNOTE_PHYS32_ENTRY), the physical address of the entry. QEMU reads 8 bytes. ---
.section .note.pvh, "a", @note
.balign 4
    .long 4, 8, 18
    .asciz "Xen"
    .quad pvh_start

.section .boot.text, "ax", @progbits
.code32

# In: EBX = physical address of struct hvm_start_info; protected mode, flat segments, paging off, no stack (xen/include/public/arch-x86/hvm/start_info.h).
.global pvh_start
pvh_start:
    cli
    cld

    # Page directories for 4 GiB: 2048 entries of 2 MiB, present, writable, large.
    mov $boot_pd, %edi
    mov $0x83, %eax
    xor %edx, %edx
1:  mov %eax, (%edi)
    mov %edx, 4(%edi)
    add $0x200000, %eax
    add $8, %edi
    cmp $boot_pd + 4 * 4096, %edi
    jne 1b

    movl $boot_pd + 0x0003, boot_pdpt
    movl $boot_pd + 0x1003, boot_pdpt + 8
    movl $boot_pd + 0x2003, boot_pdpt + 16
    movl $boot_pd + 0x3003, boot_pdpt + 24
    movl $boot_pd + 0x0003, boot_pdpt_high + 510 * 8

    movl $boot_pdpt + 3, boot_pml4
    movl $boot_pdpt + 3, boot_pml4 + 256 * 8
    movl $0x80000000, boot_pml4 + 256 * 8 + 4
    movl $boot_pdpt_high + 3, boot_pml4 + 511 * 8

    mov %ebx, %esi
    lgdt boot_gdt_pointer
    mov $bsp_start64, %ebp

# In: EBP = where to go in 64-bit mode; ESI is kept.
enter_long_mode:
    mov $boot_pml4, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x20, %eax                  # PAE
    mov %eax, %cr4
    mov $0xc0000080, %ecx           # EFER: LME, NXE
    rdmsr
    or $0x900, %eax
    wrmsr
    mov $0x80010013, %eax           # PG, WP, ET, MP, PE
    mov %eax, %cr0
    ljmp $0x08, $1f
.code64
1:  mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    jmp *%rbp

bsp_start64:
    movabs $bsp_stack_top, %rsp
    xor %ebp, %ebp
    mov %esi, %edi
    movabs $bsp_main, %rax
    call *%rax
    ud2

ap_start64:
    movabs $ap_stack_top, %rax
    mov (%rax), %rsp
    xor %ebp, %ebp
    movabs $ap_main, %rax
    call *%rax
    ud2

# --- Copied to the page the SIPI names; position-independent until it jumps to ap_start32. ---
.code16
.global ap_trampoline, ap_trampoline_end
ap_trampoline:
    cli
    cld
    mov %cs, %ax
    mov %ax, %ds
    lgdtl ap_gdt_pointer - ap_trampoline
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $0x18, $ap_start32
.balign 4
ap_gdt_pointer:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt
ap_trampoline_end:

.code32
ap_start32:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $ap_start64, %ebp
    jmp enter_long_mode
.code64

.section .boot.data, "aw", @progbits
.balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff        # 0x08: 64-bit code
    .quad 0x00cf93000000ffff        # 0x10: data
    .quad 0x00cf9b000000ffff        # 0x18: 32-bit code
boot_gdt_end:
boot_gdt_pointer:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt

.section .boot.bss, "aw", @nobits
.balign 4096
.global boot_pml4, boot_pdpt
boot_pml4:      .skip 4096
boot_pdpt:      .skip 4096
boot_pdpt_high: .skip 4096
boot_pd:        .skip 4 * 4096
.text
