// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A second-level page walk in software; AMD APM vol. 2, "Nested Paging", Intel SDM vol. 3, "EPT
 * Translation Mechanism" and "EPT Misconfigurations". Physical addresses are 52 bits wide here.
 */
#include "selftests/unit/stage2_cpu.h"

#define BIT_LARGE	BIT_ULL(7)
#define ADDRESS_BITS	0x000ffffffffff000ULL

static bool npt_malformed(u64 entry, int level, bool leaf)
{
	u64 reserved = 0;

	if (level >= 4)
		reserved |= 0x180;
	if (leaf && level == 2)
		reserved |= 0x1fe000;		/* 20:13; 12 is PAT */
	if (leaf && level == 3)
		reserved |= 0x3fffe000;		/* 29:13 */
	return entry & reserved;
}

static bool npt_allows(u64 entry, enum cpu_access access)
{
	if (!(entry & (1 << 2)))		/* U/S: nested walks are user accesses */
		return false;
	if (access == CPU_WRITE)
		return entry & (1 << 1);
	return access != CPU_FETCH || !(entry >> 63);
}

static bool ept_malformed(u64 entry, int level, bool leaf)
{
	u64 type = entry >> 3 & 7;

	if ((entry & 3) == 2)			/* writable but not readable */
		return true;
	if (!leaf)
		return entry & (level >= 4 ? 0xf8 : 0x78);
	if (level == 2 && (entry & 0x1ff000))
		return true;
	if (level == 3 && (entry & 0x3ffff000))
		return true;
	return type == 2 || type == 3 || type == 7;
}

static bool ept_allows(u64 entry, enum cpu_access access)
{
	static const u64 needed[] = { [CPU_READ] = 1, [CPU_WRITE] = 2, [CPU_FETCH] = 4 };

	return entry & needed[access];
}

/* One entry; sets accessed and dirty bits by compare-and-exchange against what was checked. */
static enum cpu_result cpu_step(const struct cpu *cpu, u64 *entry, int level,
				enum cpu_access access, bool note, u64 *ret_value, bool *ret_leaf)
{
	u64 accessed = cpu->ept ? 1 << 8 : 1 << 5, dirty = cpu->ept ? 1 << 9 : 1 << 6;
	u64 value = __atomic_load_n(entry, __ATOMIC_ACQUIRE), new;
	bool leaf;

	do {
		u64 plain = value & ~cpu->encrypt;

		if (!(value & (cpu->ept ? 7 : 1)))
			return CPU_NOT_PRESENT;
		leaf = level == 1 || (value & BIT_LARGE);
		if ((cpu->ept ? ept_malformed : npt_malformed)(plain, level, leaf))
			return CPU_MALFORMED;
		if ((value & cpu->encrypt) != cpu->encrypt)
			return CPU_MALFORMED;
		if (!(cpu->ept ? ept_allows(value, access) : npt_allows(value, access)))
			return CPU_NOT_ALLOWED;
		new = value;
		if (note)
			new |= accessed | (leaf && access == CPU_WRITE ? dirty : 0);
	} while (new != value && !__atomic_compare_exchange_n(entry, &value, new, false,
							      __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE));
	*ret_value = value & ~cpu->encrypt;
	*ret_leaf = leaf;
	return CPU_OK;
}

enum cpu_result cpu_access(const struct cpu *cpu, u64 gpa, enum cpu_access access, bool note,
			   u64 *ret_hpa)
{
	u64 table = cpu->root & ~cpu->encrypt;
	int level;

	for (level = cpu->levels; level >= 1; level--) {
		int shift = 12 + 9 * (level - 1);
		u64 *entry = (u64 *)(uintptr_t)table + (gpa >> shift & 511);
		enum cpu_result result;
		bool leaf;
		u64 value;

		result = cpu_step(cpu, entry, level, access, note, &value, &leaf);
		if (result != CPU_OK)
			return result;
		if (leaf) {
			u64 offset = (1ULL << shift) - 1;

			*ret_hpa = (value & ADDRESS_BITS & ~offset) | (gpa & offset);
			return CPU_OK;
		}
		table = value & ADDRESS_BITS;
	}
	return CPU_MALFORMED;
}
