/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef MOAT_VERSION_H
#define MOAT_VERSION_H

#define MOAT_VERSION	"0.1"

#endif /* MOAT_VERSION_H */
