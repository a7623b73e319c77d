autocmd BufNewFile,BufRead *.rpn setfiletype dprobes
