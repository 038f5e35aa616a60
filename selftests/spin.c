// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A guest that runs until its process is killed, for scripts: says "running" once it does.
 *
 * usage: spin [VCPUS]
 */
#include <pthread.h>

#include "guest.h"

static void spin_payload(uint64_t id)
{
	volatile uint64_t *p = (uint64_t *)(GUEST_FREE + id * MIB(1));
	uint64_t i;

	guest_sync(id);
	for (i = 0;; i++) {
		p[i * 512 % 0x10000] = i;
		if (i % 1024 == 0)
			inl(0x510);
	}
}

static void *run_forever(void *vcpu)
{
	for (;;)
		vcpu_run(vcpu);
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned int i, n = argc > 1 ? atoi(argv[1]) : 1;
	struct vm *vm = vm_create(GUEST_RAM, false);
	struct vcpu *vcpu;
	pthread_t thread;

	for (i = 0; i < n; i++) {
		vcpu = vcpu_create(vm, i);
		vcpu_set_long(vcpu, spin_payload, i);
		if (!vcpu_sync(vcpu, i) || pthread_create(&thread, NULL, run_forever, vcpu))
			return 1;
	}
	printf("running\n");
	fflush(stdout);
	for (;;)
		pause();
}
