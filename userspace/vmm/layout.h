/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Where everything is in the guest: the one list of addresses, ports and pins.
 *
 * Plain constants only, since dsdt.asl includes this file too.
 */
#ifndef VMM_LAYOUT_H
#define VMM_LAYOUT_H

/* Guest-physical memory. What the boot protocol needs lies in the first 640 KiB. */
#define LAYOUT_GDT		0x00001000
#define LAYOUT_BOOT_PARAMS	0x00007000
#define LAYOUT_PAGE_TABLES	0x00009000	/* six pages */
#define LAYOUT_CMDLINE		0x00020000
#define LAYOUT_LOW_END		0x0009fc00	/* end of conventional memory */
#define LAYOUT_ACPI		0x000e0000	/* the RSDP first, where kernels search for it */
#define LAYOUT_ACPI_END		0x000f0000
#define LAYOUT_RESET_VECTOR	0x000ffff0	/* where real-mode firmware would be entered */
#define LAYOUT_HIGH		0x00100000

#define LAYOUT_HOLE		0xc0000000	/* RAM goes on at 4 GiB */
#define LAYOUT_PCI_MEM		0xc0000000
#define LAYOUT_PCI_MEM_SIZE	0x20000000
#define LAYOUT_PCI_MEM_LAST	0xdfffffff
#define LAYOUT_ECAM		0xe0000000	/* one bus */
#define LAYOUT_ECAM_SIZE	0x00100000
#define LAYOUT_IOAPIC		0xfec00000
#define LAYOUT_IOAPIC_SIZE	0x00001000
#define LAYOUT_LAPIC		0xfee00000
#define LAYOUT_TSS		0xfffbd000	/* for VT-x without unrestricted guest */

/* I/O ports */
#define LAYOUT_PORT_RTC		0x70
#define LAYOUT_PORT_DELAY	0x80
#define LAYOUT_PORT_EXIT	0xf4
#define LAYOUT_PORT_COM1	0x3f8
#define LAYOUT_PORT_SLEEP	0x600		/* ACPI sleep control; status is the next */
#define LAYOUT_PORT_RESET	0x602
#define LAYOUT_PORT_EVENTS	0x610		/* events.h */
#define LAYOUT_PORT_EVENTS_SIZE	16
#define LAYOUT_PORT_PCI		0xcf8

/* IOAPIC pins */
#define LAYOUT_PINS		24
#define LAYOUT_PIN_COM1		4
#define LAYOUT_PIN_EVENTS	5

/* ACPI */
#define LAYOUT_SLEEP_S5		5

#endif /* VMM_LAYOUT_H */
