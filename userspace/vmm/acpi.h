/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_ACPI_H
#define VMM_ACPI_H

#include <stdint.h>

struct memory;

/* Write the tables of a machine of @cpus CPUs. Return: guest-physical address of the RSDP. */
uint64_t acpi_build(const struct memory *memory, unsigned int cpus);

#endif /* VMM_ACPI_H */
