// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * ACPI tables of a hardware-reduced machine (ACPI 6.4, section 4.1): no PM timer, no fixed events,
 * no SCI; sleep and reset are one register each, and what happens is told by a generic event device, the
 * power button among it. Everything is in one piece of reserved memory,
 * the RSDP first.
 */
#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "userspace/vmm/acpi.h"
#include "userspace/vmm/layout.h"
#include "userspace/vmm/memory.h"

#include "dsdt.hex"

#define ACPI_ALIGN		16

#define FADT_REVISION		6
#define FADT_MINOR		4
#define FADT_NO_VGA		0x04	/* of boot_arch; bit 1 clear: no 8042 */
#define FADT_WBINVD		(1u << 0)
#define FADT_NO_FIXED_POWER	(1u << 4)
#define FADT_NO_FIXED_SLEEP	(1u << 5)
#define FADT_RESET_REGISTER	(1u << 10)
#define FADT_HW_REDUCED		(1u << 20)
#define FADT_CMOS_CENTURY	0x32

#define MADT_LAPIC		0
#define MADT_IOAPIC		1
#define MADT_ENABLED		1

#define GAS_IO			1
#define GAS_BYTE		1

struct acpi_header {
	char signature[4];
	uint32_t length;
	uint8_t revision;
	uint8_t checksum;
	char oem[6];
	char oem_table[8];
	uint32_t oem_revision;
	char creator[4];
	uint32_t creator_revision;
} __attribute__((packed));

struct acpi_rsdp {
	char signature[8];
	uint8_t checksum;
	char oem[6];
	uint8_t revision;
	uint32_t rsdt;
	uint32_t length;
	uint64_t xsdt;
	uint8_t checksum_all;
	uint8_t reserved[3];
} __attribute__((packed));

struct acpi_gas {
	uint8_t space;
	uint8_t bits;
	uint8_t offset;
	uint8_t access;
	uint64_t address;
} __attribute__((packed));

/* Fields that are zero on a hardware-reduced machine are left out by name. */
struct acpi_fadt {
	struct acpi_header header;
	uint8_t legacy1[9];
	uint8_t profile;
	uint8_t legacy2[62];
	uint8_t century;
	uint16_t boot_arch;
	uint8_t reserved1;
	uint32_t flags;
	struct acpi_gas reset;
	uint8_t reset_value;
	uint16_t arm_boot_arch;
	uint8_t minor;
	uint64_t x_facs;
	uint64_t x_dsdt;
	struct acpi_gas legacy3[8];
	struct acpi_gas sleep_control;
	struct acpi_gas sleep_status;
	uint64_t hypervisor;
} __attribute__((packed));

struct acpi_madt {
	struct acpi_header header;
	uint32_t lapic;
	uint32_t flags;
} __attribute__((packed));

struct acpi_madt_lapic {
	uint8_t type, length;
	uint8_t uid;
	uint8_t id;
	uint32_t flags;
} __attribute__((packed));

struct acpi_madt_ioapic {
	uint8_t type, length;
	uint8_t id;
	uint8_t reserved;
	uint32_t address;
	uint32_t gsi_base;
} __attribute__((packed));

struct acpi_mcfg {
	struct acpi_header header;
	uint64_t reserved1;
	uint64_t ecam;
	uint16_t segment;
	uint8_t first_bus;
	uint8_t last_bus;
	uint32_t reserved2;
} __attribute__((packed));

struct acpi_xsdt {
	struct acpi_header header;
	uint64_t table[3];
} __attribute__((packed));

static_assert(sizeof(struct acpi_header) == 36, "ACPI 6.4, section 5.2.6");
static_assert(sizeof(struct acpi_rsdp) == 36, "ACPI 6.4, section 5.2.5.3");
static_assert(sizeof(struct acpi_fadt) == 276, "ACPI 6.4, section 5.2.9");
static_assert(offsetof(struct acpi_fadt, flags) == 112, "ACPI 6.4, section 5.2.9");
static_assert(offsetof(struct acpi_fadt, sleep_control) == 244, "ACPI 6.4, section 5.2.9");

/**
 * struct acpi_area - where the tables go, one behind the other
 * @next: guest-physical address of the next; all before it is written
 */
struct acpi_area {
	const struct memory *memory;
	uint64_t next;
};

static uint8_t acpi_checksum(const void *table, size_t len)
{
	const uint8_t *byte = table;
	uint8_t sum = 0;

	while (len--)
		sum += *byte++;
	return -sum;
}

static uint64_t acpi_put(struct acpi_area *area, const void *bytes, size_t len)
{
	uint64_t at = area->next;

	assert(at + len <= LAYOUT_ACPI_END);
	memcpy(memory_at(area->memory, at, len), bytes, len);
	area->next += len;
	return at;
}

static struct acpi_header acpi_header(const char *signature, uint8_t revision)
{
	struct acpi_header header = {
		.revision = revision, .oem_revision = 1, .creator_revision = 1,
	};

	memcpy(header.signature, signature, 4);
	memcpy(header.oem, "MOAT  ", 6);
	memcpy(header.oem_table, "MOATVMM ", 8);
	memcpy(header.creator, "MOAT", 4);
	return header;
}

/* The table that started at @at ends here: set its length and checksum. */
static uint64_t acpi_close(struct acpi_area *area, uint64_t at)
{
	uint32_t length = area->next - at;
	struct acpi_header *header = memory_at(area->memory, at, length);

	header->length = length;
	header->checksum = 0;
	header->checksum = acpi_checksum(header, length);
	area->next = (area->next + ACPI_ALIGN - 1) & ~(ACPI_ALIGN - 1ULL);
	return at;
}

static uint64_t acpi_put_fadt(struct acpi_area *area, uint64_t dsdt)
{
	struct acpi_gas port = { .space = GAS_IO, .bits = 8, .access = GAS_BYTE };
	struct acpi_fadt fadt = {
		.header = acpi_header("FACP", FADT_REVISION),
		.century = FADT_CMOS_CENTURY,
		.boot_arch = FADT_NO_VGA,
		.flags = FADT_WBINVD | FADT_NO_FIXED_POWER | FADT_NO_FIXED_SLEEP |
			 FADT_RESET_REGISTER | FADT_HW_REDUCED,
		.reset = port,
		.reset_value = 1,
		.minor = FADT_MINOR,
		.x_dsdt = dsdt,
		.sleep_control = port,
		.sleep_status = port,
	};

	fadt.reset.address = LAYOUT_PORT_RESET;
	fadt.sleep_control.address = LAYOUT_PORT_SLEEP;
	fadt.sleep_status.address = LAYOUT_PORT_SLEEP + 1;
	memcpy(&fadt.hypervisor, "Moat", 4);
	return acpi_close(area, acpi_put(area, &fadt, sizeof(fadt)));
}

static void acpi_put_cpu(struct acpi_area *area, unsigned int id)
{
	struct acpi_madt_lapic lapic = {
		.type = MADT_LAPIC, .length = sizeof(lapic), .uid = id, .id = id,
		.flags = MADT_ENABLED,
	};

	acpi_put(area, &lapic, sizeof(lapic));
}

static uint64_t acpi_put_madt(struct acpi_area *area, unsigned int cpus)
{
	struct acpi_madt madt = { .header = acpi_header("APIC", 5), .lapic = LAYOUT_LAPIC };
	struct acpi_madt_ioapic ioapic = {
		.type = MADT_IOAPIC, .length = sizeof(ioapic), .address = LAYOUT_IOAPIC,
	};
	uint64_t at = acpi_put(area, &madt, sizeof(madt));

	for (unsigned int id = 0; id < cpus; id++)
		acpi_put_cpu(area, id);
	acpi_put(area, &ioapic, sizeof(ioapic));
	return acpi_close(area, at);
}

static uint64_t acpi_put_mcfg(struct acpi_area *area)
{
	struct acpi_mcfg mcfg = { .header = acpi_header("MCFG", 1), .ecam = LAYOUT_ECAM };

	return acpi_close(area, acpi_put(area, &mcfg, sizeof(mcfg)));
}

static void acpi_put_rsdp(struct acpi_area *area, uint64_t xsdt)
{
	struct acpi_rsdp rsdp = { .revision = 2, .length = sizeof(rsdp), .xsdt = xsdt };

	memcpy(rsdp.signature, "RSD PTR ", 8);
	memcpy(rsdp.oem, "MOAT  ", 6);
	rsdp.checksum = acpi_checksum(&rsdp, offsetof(struct acpi_rsdp, length));
	rsdp.checksum_all = acpi_checksum(&rsdp, sizeof(rsdp));
	memcpy(memory_at(area->memory, LAYOUT_ACPI, sizeof(rsdp)), &rsdp, sizeof(rsdp));
}

uint64_t acpi_build(const struct memory *memory, unsigned int cpus)
{
	struct acpi_area area = {
		.memory = memory,
		.next = LAYOUT_ACPI + ((sizeof(struct acpi_rsdp) + ACPI_ALIGN - 1) &
				       ~(ACPI_ALIGN - 1ULL)),
	};
	struct acpi_xsdt xsdt = { .header = acpi_header("XSDT", 1) };
	uint64_t dsdt = acpi_close(&area, acpi_put(&area, dsdt_aml_code, sizeof(dsdt_aml_code)));

	xsdt.table[0] = acpi_put_fadt(&area, dsdt);
	xsdt.table[1] = acpi_put_madt(&area, cpus);
	xsdt.table[2] = acpi_put_mcfg(&area);
	acpi_put_rsdp(&area, acpi_close(&area, acpi_put(&area, &xsdt, sizeof(xsdt))));
	return LAYOUT_ACPI;
}
