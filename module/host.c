// SPDX-License-Identifier: GPL-2.0-only
/*
 * Virtualization on each CPU: on while the module is loaded, off before a CPU goes away, the
 * machine sleeps, reboots or starts another kernel, and when the module leaves.
 *
 * Moat never clears what it did not set: where another hypervisor holds a CPU, loading is refused.
 * Each CPU remembers whether it was Moat that turned virtualization on.
 */
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/platform_device.h>
#include <linux/reboot.h>

#include "inner.h"

const struct moat_hw_ops *moat_hw __read_mostly;
DEFINE_PER_CPU(struct moat_cpu, moat_cpus);

static const struct moat_hw_ops *const host_vendors[] = { &svm_hw_ops, &vmx_hw_ops };
static enum cpuhp_state host_cpuhp_state;
static struct platform_device *host_device;

static int host_cpu_online(unsigned int cpu)
{
	unsigned long flags;
	int r;

	local_irq_save(flags);
	r = moat_hw->cpu_enable();
	local_irq_restore(flags);
	if (r == -EBUSY)
		pr_err("CPU %u: %s is in use by another hypervisor: unload it (rmmod kvm_amd kvm_intel kvm)\n",
		       cpu, moat_hw->name);
	return r;
}

/* With interrupts off, as calls to other CPUs are. */
static void host_cpu_disable(void *unused)
{
	moat_hw->cpu_disable();
}

static int host_cpu_offline(unsigned int cpu)
{
	return smp_call_function_single(cpu, host_cpu_disable, NULL, true);
}

/*
 * The last CPU is not unplugged when the machine sleeps. Its turn comes when all threads are frozen
 * and the other CPUs are gone, which is when devices lose their interrupts.
 */
static int host_suspend_noirq(struct device *dev)
{
	on_each_cpu(host_cpu_disable, NULL, 1);
	return 0;
}

static void host_cpu_resume(void *unused)
{
	if (moat_hw->cpu_enable())
		pr_err("CPU %d: %s did not come back after sleep\n", smp_processor_id(),
		       moat_hw->name);
}

static int host_resume_noirq(struct device *dev)
{
	on_each_cpu(host_cpu_resume, NULL, 1);
	return 0;
}

static const struct dev_pm_ops host_pm_ops = {
	NOIRQ_SYSTEM_SLEEP_PM_OPS(host_suspend_noirq, host_resume_noirq)
};

static struct platform_driver host_driver = {
	.driver = { .name = "moat", .pm = &host_pm_ops },
};

/*
 * INIT and a new kernel need virtualization off. Guests that run are stopped by their CPU's exit.
 */
static int host_reboot(struct notifier_block *block, unsigned long action, void *data)
{
	on_each_cpu(host_cpu_disable, NULL, 1);
	return NOTIFY_OK;
}

static struct notifier_block host_reboot_block = {
	.notifier_call = host_reboot,
};

static int host_device_add(void)
{
	int r = platform_driver_register(&host_driver);

	if (r)
		return r;
	host_device = platform_device_register_simple("moat", PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(host_device)) {
		platform_driver_unregister(&host_driver);
		return PTR_ERR(host_device);
	}
	return 0;
}

static void host_device_remove(void)
{
	platform_device_unregister(host_device);
	platform_driver_unregister(&host_driver);
}

static int host_vendor_find(void)
{
	unsigned int i;
	int r;

	for (i = 0; i < ARRAY_SIZE(host_vendors); i++) {
		r = host_vendors[i]->setup();
		if (!r)
			moat_hw = host_vendors[i];
		if (r != -ENODEV)
			return r;
	}
	pr_err("this CPU has no AMD-V or VT-x (svm or vmx in /proc/cpuinfo), or the hypervisor below hides it\n");
	return -ENODEV;
}

int moat_host_init(void)
{
	int r = host_vendor_find();

	if (r)
		return r;
	r = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, "moat:online", host_cpu_online,
			      host_cpu_offline);
	if (r < 0)
		goto teardown;
	host_cpuhp_state = r;
	r = host_device_add();
	if (r)
		goto remove_cpuhp;
	register_reboot_notifier(&host_reboot_block);
	return 0;

remove_cpuhp:
	cpuhp_remove_state(host_cpuhp_state);
teardown:
	moat_hw->teardown();
	return r;
}

void moat_host_exit(void)
{
	unregister_reboot_notifier(&host_reboot_block);
	host_device_remove();
	cpuhp_remove_state(host_cpuhp_state);
	moat_hw->teardown();
}
