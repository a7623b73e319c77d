// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* 32-bit code without a library: calls work() a thousand times, and prints what came of it. */

static unsigned int executed;

__attribute__((noinline, noclone, used)) int work(int a, int b)
{
	executed++;
	return a * 3 + b;
}

static int call(int number, int a, const void *b, int c)
{
	int result;

	asm volatile("int $0x80" : "=a" (result) : "a" (number), "b" (a), "c" (b), "d" (c) : "memory");
	return result;
}

static void print(unsigned int value, char end)
{
	char text[12];
	int at = sizeof(text);

	text[--at] = end;
	do
		text[--at] = '0' + value % 10;
	while (value /= 10);
	call(4, 1, text + at, sizeof(text) - at);
}

void _start(void)
{
	int sum = 0;

	for (int i = 0; i < 1000; i++)
		sum += work(i, 1);
	print(executed, ' ');
	print(sum, '\n');
	call(1, 0, 0, 0);
}
