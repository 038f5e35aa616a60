/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef LIB_TEXT_H
#define LIB_TEXT_H

#include <stddef.h>

/* What untrusted programs said, for terminals and JSON: of what is no text, lines and tabs apart, a dot is left. */
void text_clean(char *text, size_t len);

#endif /* LIB_TEXT_H */
