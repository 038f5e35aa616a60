/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What went wrong, in words for people: of functions that return an errno, and never print. */
#ifndef MOATD_WHY_H
#define MOATD_WHY_H

#define WHY_SIZE	160

/* Writes into @why, of WHY_SIZE bytes, in one line. Return: @err. */
int why_say(char *why, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif /* MOATD_WHY_H */
