// A header with a mistake in it.
#define LOG_REGISTER(reg) push r, reg; lgo 1
#undef
