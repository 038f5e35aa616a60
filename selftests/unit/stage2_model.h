/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Runs a program of random operations on second-level tables and on a plain model of them. */
#ifndef MOAT_STAGE2_MODEL_H
#define MOAT_STAGE2_MODEL_H

#include <stddef.h>

#include "module/pure.h"

/* NULL where both agreed at each step, else what did not hold, and *ret_line in stage2_model.c. */
const char *stage2_model_run(const u8 *program, size_t size, bool ept, int levels, int *ret_line);

#endif
