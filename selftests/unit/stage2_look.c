// SPDX-License-Identifier: MIT OR GPL-2.0
#include "selftests/unit/stage2_look.h"

struct bits {
	u64 write, exec, noexec, accessed, dirty;
};

static const struct bits npt = {
	.write = 1ULL << 1, .noexec = 1ULL << 63, .accessed = 1ULL << 5, .dirty = 1ULL << 6,
};

static const struct bits ept = {
	.write = 1ULL << 1, .exec = 1ULL << 2, .accessed = 1ULL << 8, .dirty = 1ULL << 9,
};

static u64 address_of(const struct stage2 *s2, u64 value)
{
	return value & 0xffffffffff000ULL & ~s2->encrypt;
}

struct stage2_leaf stage2_leaf_of(const struct stage2 *s2, u64 gpa, int level, u64 value)
{
	const struct bits *bits = s2->format == &stage2_ept ? &ept : &npt;
	struct stage2_leaf leaf = {
		.gpa = gpa & ~(stage2_level_size(level) - 1), .hpa = address_of(s2, value),
		.level = level,
	};

	if (value & bits->write)
		leaf.flags |= STAGE2_WRITE;
	if (bits->exec ? value & bits->exec : !(value & bits->noexec))
		leaf.flags |= STAGE2_EXEC;
	if (value & bits->accessed)
		leaf.flags |= STAGE2_ACCESSED;
	if (value & bits->dirty)
		leaf.flags |= STAGE2_DIRTY;
	return leaf;
}

bool stage2_lookup(const struct stage2 *s2, u64 gpa, struct stage2_leaf *ret_leaf)
{
	int level = s2->levels;
	u64 *table = s2->root, value;

	if (!table || gpa >= stage2_limit(s2))
		return false;
	for (;; level--) {
		value = READ_ONCE(table[gpa / stage2_level_size(level) % 512]);
		if (!value || level == 1 || value & 1ULL << 7)
			break;
		table = __va(address_of(s2, value));
	}
	*ret_leaf = stage2_leaf_of(s2, gpa, level, value);
	return value;
}
