" Vim syntax file. Language: DProbes probe programs.
" Made from the tables of the language by the tests of rpn-asm.
if exists('b:current_syntax')
  finish
endif

syntax case match
syntax iskeyword @,48-57,_
syntax match dprobesSelector /\<\%(str\|mrf\|lv\|gv\|kstack\|ustack\|name\|lp\|plp\|cv\|sbp\|tsp\|wid\|r\|u\|cpuid\|msr\|task\|pid\|tid\|uid\|cpu\|clock\|tsc\|io\|u8\|u16\|u32\|mem\|u64\|s8\|s16\|s32\|rw\|x\|st\|pv\|stp\|procid\)\>/ contained
syntax match dprobesRegister /\<\%(cs\|ds\|es\|fs\|gs\|ss\|rax\|rbx\|rcx\|rdx\|rdi\|rsi\|rflags\|rip\|rsp\|rbp\|r8\|r9\|r10\|r11\|r12\|r13\|r14\|r15\|fs_base\|gs_base\|cr8\|xcr0\|tr\|ldtr\|gdtr\|idtr\|cr0\|cr2\|cr3\|cr4\|dr0\|dr1\|dr2\|dr3\|dr6\|dr7\|fcw\|fsw\|ftw\|mxcsr\|xmm0\|xmm1\|xmm2\|xmm3\|xmm4\|xmm5\|xmm6\|xmm7\|xmm8\|xmm9\|xmm10\|xmm11\|xmm12\|xmm13\|xmm14\|xmm15\|xmm16\|xmm17\|xmm18\|xmm19\|xmm20\|xmm21\|xmm22\|xmm23\|xmm24\|xmm25\|xmm26\|xmm27\|xmm28\|xmm29\|xmm30\|xmm31\|ymm0\|ymm1\|ymm2\|ymm3\|ymm4\|ymm5\|ymm6\|ymm7\|ymm8\|ymm9\|ymm10\|ymm11\|ymm12\|ymm13\|ymm14\|ymm15\|ymm16\|ymm17\|ymm18\|ymm19\|ymm20\|ymm21\|ymm22\|ymm23\|ymm24\|ymm25\|ymm26\|ymm27\|ymm28\|ymm29\|ymm30\|ymm31\|zmm0\|zmm1\|zmm2\|zmm3\|zmm4\|zmm5\|zmm6\|zmm7\|zmm8\|zmm9\|zmm10\|zmm11\|zmm12\|zmm13\|zmm14\|zmm15\|zmm16\|zmm17\|zmm18\|zmm19\|zmm20\|zmm21\|zmm22\|zmm23\|zmm24\|zmm25\|zmm26\|zmm27\|zmm28\|zmm29\|zmm30\|zmm31\)\>/ contained
syntax match dprobesFacility /\<\%(debugger\|dump\|core\|trace\|snapshot\)\>/ contained
syntax match dprobesException /\<\%(INVALID_ADDR\|SEG_FAULT\|MAX_JMPS\|CALL_STACK_OVERFLOW\|DIV_BY_ZERO\|INVALID_OPERAND\|INVALID_OPCODE\|HEAP_NOMEM\|HEAP_INVALID_HANDLE\|HEAP_INVALID_OFFSET\|LOG_OVERFLOW\|RPN_STACK_WRAP\|USER\)\>/
syntax match dprobesConstant /\<\%(kernel\|kmod\|user\|yes\|no\|execute\|write\|rw\|io\)\>/ contained
syntax match dprobesMapKind /\<\%(count\|sum\|min\|max\|avg\|log2\|linear\)\>/ contained
syntax match dprobesMapOption /\<\%(keys\|entries\|min\|max\|step\)\>\ze\s*=/ contained
syntax match dprobesNumber /\<\d\w*\>/
syntax match dprobesLabel /^\s*\zs\h\w*\ze\s*:/
syntax region dprobesInstruction matchgroup=dprobesMnemonic start=/\<\%(nop\|suspend\|resume\|setmin\|setmaj\|log\|push\|pop\|move\|inc\|dec\|alloc\|free\|add\|sub\|mul\|div\|idiv\|neg\|not\|and\|or\|xor\|rol\|ror\|shl\|shr\|pbl\|pbr\|pzl\|pzr\|xchg\|dup\|ros\|copy\|save\|restore\|vfy\|malloc\|pushh\|poph\|agg\|sx\|ux\|purge\|trace\)\>\%(\s*[=:]\)\@!/ skip=/\\$/ end=/$/ end=/;/me=e-1 contains=dprobesSelector,dprobesRegister,dprobesFacility,dprobesException,dprobesNumber,dprobesString,dprobesCharacter,dprobesComment oneline keepend
syntax region dprobesInstruction matchgroup=dprobesControl start=/\<\%(jmp\|jlt\|jle\|jgt\|jge\|jz\|jnz\|loop\|call\|ret\|abort\|remove\|exit\|exit_to\|rx\)\>\%(\s*[=:]\)\@!/ skip=/\\$/ end=/$/ end=/;/me=e-1 contains=dprobesSelector,dprobesRegister,dprobesFacility,dprobesException,dprobesNumber,dprobesString,dprobesCharacter,dprobesComment oneline keepend
syntax region dprobesValue matchgroup=dprobesItem start=/\<\%(name\|modtype\|major\|id\|logmax\|ex_logmax\|jmpmax\|heapmax\|autostacktrace\|vars\|globals\|offset\|address\|watch\|opcode\|minor\|group\|type\|pass_count\|max_hits\|logonfault\|ex_mask\|suspended\|heap\|display\)\>\ze\s*=/ skip=/\\$/ end=/$/ end=/;/me=e-1 contains=dprobesConstant,dprobesException,dprobesNumber,dprobesString,dprobesCharacter,dprobesComment oneline keepend
syntax region dprobesMap matchgroup=dprobesItem start=/\<map\>\ze\s\+\S\+\s*=/ skip=/\\$/ end=/$/ end=/;/me=e-1 contains=dprobesConstant,dprobesException,dprobesNumber,dprobesString,dprobesCharacter,dprobesComment,dprobesMapKind,dprobesMapOption oneline keepend
syntax match dprobesDirective /^\s*#\s*\<\%(define\|undef\|include\|if\|ifdef\|ifndef\|elif\|else\|endif\|error\|warning\|line\)\>/
syntax region dprobesString start=/"/ skip=/\\./ end=/"/ end=/$/ oneline
syntax match dprobesCharacter /'\%(\\.[^']*\|[^'\\]\)'/
syntax region dprobesComment start=+//+ skip=+\\$+ end=+$+ keepend
syntax region dprobesComment start=+/\*+ end=+\*/+
highlight default link dprobesSelector Type
highlight default link dprobesRegister Identifier
highlight default link dprobesFacility Constant
highlight default link dprobesException Constant
highlight default link dprobesConstant Boolean
highlight default link dprobesMapKind Type
highlight default link dprobesMapOption Identifier
highlight default link dprobesNumber Number
highlight default link dprobesLabel Label
highlight default link dprobesMnemonic Statement
highlight default link dprobesControl Conditional
highlight default link dprobesItem Keyword
highlight default link dprobesDirective PreProc
highlight default link dprobesString String
highlight default link dprobesCharacter Character
highlight default link dprobesComment Comment

let b:current_syntax = 'dprobes'
