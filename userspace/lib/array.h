/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef LIB_ARRAY_H
#define LIB_ARRAY_H

#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))

#endif /* LIB_ARRAY_H */
