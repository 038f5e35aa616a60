// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Runs a command between the two marks that scripts/bench-count.c counts from and to. As the first
 * process of a machine it is that machine's whole life: it switches it off.
 *
 * usage: bench_boot COMMAND ARGS...
 */
#include <stdio.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int status = 0;
	pid_t pid;

	if (getpid() == 1)
		return reboot(RB_POWER_OFF);
	if (argc < 2)
		return 2;
	__asm__ volatile("nopl 0x54414f4d(%rax,%rax)");
	pid = fork();
	if (!pid) {
		execvp(argv[1], argv + 1);
		perror(argv[1]);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 1;
	__asm__ volatile("nopl 0x54414f4e(%rax,%rax)");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
