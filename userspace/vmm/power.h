/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_POWER_H
#define VMM_POWER_H

struct bus;
struct stop;

/**
 * power_init - the ports by which the guest ends its machine
 *
 * ACPI's sleep control: power-off, status 0. ACPI's reset register: a reset, which ends the machine
 * too, status 0, with a line that says so. LAYOUT_PORT_EXIT: ends it at once, with the byte written
 * as the status.
 */
void power_init(struct bus *pio, struct stop *stop);

#endif /* VMM_POWER_H */
